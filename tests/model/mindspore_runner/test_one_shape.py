"""What `RunnerFacts.deterministic` promises: in steps of one shape a token's logits depend on its sequence alone."""

import pytest

from tests.model.adapters.folders import Lora
from tests.model.families.checkpoints import load
from tests.model.mindspore_runner import scenarios
from tests.model.one_shape import WAYS

CHECKPOINTS = load()


@pytest.mark.parametrize(
    ("name", "bfloat16", "count"),
    [("qwen2-window", False, 140), ("qwen2-moe", True, 40)],  # a round of attention's softmax has 128 keys
    ids=["a window, in float32", "experts, in bfloat16"],
)
def test_to_the_bit(in_mindspore, tmp_path, name, bfloat16, count):
    folder = CHECKPOINTS[name].save(tmp_path, bfloat16=bfloat16)
    assert in_mindspore(scenarios.differences_in_one_shape, folder, count) == dict.fromkeys(WAYS, 0)


def test_with_adapters(in_mindspore, tmp_path):
    it = CHECKPOINTS["qwen2"]
    adapters = tuple(Lora(it, seed, rank).save(tmp_path / str(seed)) for seed, rank in ((1, 4), (2, 9)))
    folder = it.save(tmp_path / "base")
    found = in_mindspore(scenarios.differences_in_one_shape, folder, 40, adapters=adapters)
    assert found == dict.fromkeys(WAYS, 0)
