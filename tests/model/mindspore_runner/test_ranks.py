"""A model divided among two ranks: the same as one, to the user of the runner."""

from __future__ import annotations

import numpy as np
import pytest

from model.errors import ConfigurationError
from model.mindspore_common.ranks import Ranks
from model.mindspore_runner import MindSporeRunner
from tests.model import conformance
from tests.model.adapters.folders import Lora
from tests.model.families.checkpoints import load
from tests.model.mindspore_runner import ranks, scenarios

CHECKPOINTS = load()
OTHER = np.random.default_rng(1).integers(3, 256, scenarios.LENGTH)
LIMIT = 1e-5  # of the standard deviation of a position's logits


@pytest.fixture(scope="module")
def pair():
    with ranks.two_processes() as both:
        yield both


def require_parity(pair, folder, first, **options):
    """Over mixed and resumed steps; and all ranks hold the same bits, or they would part."""
    tokens = [first.tolist(), OTHER.tolist()]
    (found, expected), (other, _) = pair.call(ranks.mixed, folder, tokens, **options)
    for one, its_twin, alone in zip(found, other, expected, strict=True):
        np.testing.assert_array_equal(one, its_twin)
        assert (np.abs(one - alone).max(1) / alone.std(1)).max() <= LIMIT


@pytest.mark.engine
@pytest.mark.parametrize(("name", "bfloat16"), [("qwen2-window", False), ("llama-tied", True), ("qwen2-moe", False)])
def test_two_ranks_compute_what_one_does(pair, name, bfloat16, tmp_path):
    """Biases, GQA, windows; a head that is the embedding, in bfloat16; experts, and one that is shared."""
    it = CHECKPOINTS[name]
    require_parity(pair, it.save(tmp_path, bfloat16=bfloat16), it.tokens)


@pytest.mark.engine
def test_fewer_key_value_heads_than_ranks(pair, tmp_path):
    it = CHECKPOINTS["llama-mqa"]
    require_parity(pair, it.save(tmp_path), it.tokens)


@pytest.mark.engine
@pytest.mark.parametrize("name", ["qwen3-tied", "qwen3-moe"])
def test_mindformers_networks_in_two_parts(pair, name, tmp_path):
    """Biases of what is added up, a head that is the embedding, norms of heads; experts. It is what Ascend runs, but
    for attention, norms and the collectives."""
    it = CHECKPOINTS[name]
    require_parity(pair, it.save(tmp_path), it.tokens, load=ranks.mindformers)


@pytest.mark.engine
def test_every_rank_keeps_the_runners_contract(pair):
    held = [check.__name__ for check in (*conformance.EVERYWHERE, *conformance.WHERE_SOMETHING_COMPUTES)]
    assert pair.call(ranks.conforms) == [held, held]


@pytest.mark.engine
def test_graphs_are_kept_for_each_rank(pair, tmp_path):
    it, cache = CHECKPOINTS["qwen2-tied"], tmp_path / "cache"
    (first, count), (second, _) = pair.call(ranks.warmed_up, it.save(tmp_path), cache)
    assert first == second
    assert len(list(cache.glob("*/*.mindir"))) == 2 * count


@pytest.mark.engine
def test_a_rank_that_is_left_alone_says_so(pair, tmp_path):
    said, _ = pair.call(ranks.one_stays_away, CHECKPOINTS["qwen2"].save(tmp_path), patience_s=0.1)
    assert len(said) == 2
    for it in said:
        assert "the step failed and the runner must be loaded again: rank 0 waits for rank 1 (pid " in it
        assert "which does not come" in it


@pytest.mark.mccl
def test_mindspores_own_all_reduce_gives_the_same(tmp_path):
    """The primitive that is HCCL on Ascend, and how ranks find each other there. `make test-mccl`: it takes half a
    minute to start."""
    it = CHECKPOINTS["qwen2"]
    with ranks.two_processes() as both:
        require_parity(both, it.save(tmp_path / "ours"), it.tokens, reduce="mindspore")
    it = CHECKPOINTS["glm4"]
    with ranks.two_processes() as both:
        how = {"load": ranks.mindformers_as_on_ascend, "reduce": "mindspore"}
        require_parity(both, it.save(tmp_path / "mindformers"), it.tokens, **how)


# ---- without MindSpore ---------------------------------------------------------------------------------------------


def rank(number, count=2):
    return Ranks(number, count)


def test_facts_and_memory_of_a_rank(tmp_path):
    folder = CHECKPOINTS["qwen2"].save(tmp_path)
    one = MindSporeRunner(scenarios.settings(folder))
    two = MindSporeRunner(scenarios.settings(folder, ranks=rank(1)))
    assert two.facts.name == f"{one.facts.name} on 2 ranks"
    assert two.facts.vocab_size == one.facts.vocab_size
    assert two.memory_need().kv_cache * 2 == one.memory_need().kv_cache
    assert one.memory_need().weights / 2 < two.memory_need().weights < one.memory_need().weights
    many = MindSporeRunner(scenarios.settings(folder, ranks=rank(0, 4)))
    assert many.facts.candidates == 64
    assert many.memory_need().kv_cache * 2 == one.memory_need().kv_cache  # each key/value head lies in two ranks


def test_what_cannot_be_divided_is_refused_before_mindspore_is_loaded(tmp_path):
    folder = CHECKPOINTS["qwen2"].save(tmp_path)
    with pytest.raises(ConfigurationError, match="can't be divided among 3 ranks; use 1, 2 or 4"):
        MindSporeRunner(scenarios.settings(folder, ranks=rank(0, 3)))
    lora = Lora(CHECKPOINTS["qwen2"]).save(tmp_path / "adapter")
    with pytest.raises(ConfigurationError, match="adapters beside the model are not divided among 2 ranks"):
        MindSporeRunner(scenarios.settings(folder, ranks=rank(0), adapters=(lora,)))
    merged = MindSporeRunner(scenarios.settings(folder, ranks=rank(0), merged_adapter=lora))
    assert merged.memory_need() == MindSporeRunner(scenarios.settings(folder, ranks=rank(0))).memory_need()
