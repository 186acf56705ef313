"""The decoder's graph against transformers, for families that have every feature among them; the others' specs and
weights are compared in numpy (tests/model/families)."""

from __future__ import annotations

import numpy as np
import pytest

from model.families import canonical_weights, read_spec
from scripts.tools.family_weights import POSITIONS, PROMPT
from tests.model.families.checkpoints import load
from tests.model.mindspore_runner import scenarios
from tests.model.numpy_decoder import NumpyDecoder

CHECKPOINTS = load()
LIMIT = 1e-4  # of the standard deviation of a position's logits


@pytest.mark.parametrize("name", ["qwen2-window", "gemma2", "gemma3", "glm4", "qwen2-moe"])
def test_mixed_steps(in_mindspore, name, tmp_path):
    """Beyond the window, which is 12."""
    it = CHECKPOINTS[name]
    other = np.random.default_rng(1).integers(3, 256, scenarios.LENGTH)
    folder, spec = it.save(tmp_path), read_spec(it.config)
    first, second = in_mindspore(scenarios.mixed, folder, [it.tokens.tolist(), other.tolist()])
    assert it.error(first[list(POSITIONS)]) <= LIMIT
    np.testing.assert_array_equal(first[PROMPT - 1 : -1].argmax(-1), it.tokens[PROMPT:])
    weights = {weight.name: weight.read(np.float32) for weight in canonical_weights(spec, folder)}
    expected = NumpyDecoder(spec, weights).logits(other)
    assert (np.abs(second - expected).max(1) / expected.std(1)).max() <= LIMIT
