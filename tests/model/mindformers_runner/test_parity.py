"""mindformers' networks on CPU against transformers, fed from the same checkpoints as the decoder."""

from __future__ import annotations

import numpy as np
import pytest

from model.families import read_spec
from scripts.tools.family_weights import POSITIONS, PROMPT
from tests.model.families.checkpoints import load
from tests.model.mindformers_runner import scenarios
from tests.model.mindspore_runner.test_parity import LIMIT, OTHER, in_numpy, require_parity

CHECKPOINTS = load()


@pytest.mark.parametrize("name", ["qwen2", "internlm2", "qwen3", "glm4", "qwen3-moe"])
def test_mixed_steps(in_mindspore, name, tmp_path):
    """The Llama with biases and from fused matrices; `GPTModel` with norms of heads, norms around, and experts."""
    require_answers(in_mindspore, scenarios.mixed, name, tmp_path)


@pytest.mark.parametrize("name", ["glm4"])
def test_dynamic_shapes(in_mindspore, name, tmp_path):
    require_answers(in_mindspore, scenarios.mixed_with_dynamic_shapes, name, tmp_path)


def require_answers(in_mindspore, run, name, folder):
    it = CHECKPOINTS[name]
    it.save(folder)
    first, second = in_mindspore(run, folder, [it.tokens.tolist(), OTHER.tolist()])
    assert it.error(first[list(POSITIONS)]) <= LIMIT
    np.testing.assert_array_equal(first[PROMPT - 1 : -1].argmax(-1), it.tokens[PROMPT:])
    require_parity(second, in_numpy(read_spec(it.config), folder, OTHER))
