"""The decoder's graph against transformers, for families that have every feature among them; the others' specs and
weights are compared in numpy (tests/model/families)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.families import Spec, canonical_weights, read_spec
from scripts.tools.family_weights import POSITIONS, PROMPT
from tests.model.families.checkpoints import load
from tests.model.mindspore_runner import scenarios
from tests.model.numpy_decoder import NumpyDecoder

CHECKPOINTS = load()
OTHER = np.random.default_rng(1).integers(3, 256, scenarios.LENGTH)
LIMIT = 1e-4  # of the standard deviation of a position's logits


@pytest.mark.parametrize("name", ["qwen2-window", "gemma2", "gemma3", "glm4", "qwen2-moe"])
def test_mixed_steps(in_mindspore, name, tmp_path):
    """Beyond the window, which is 12."""
    it = CHECKPOINTS[name]
    folder, spec = it.save(tmp_path), read_spec(it.config)
    first, second = in_mindspore(scenarios.mixed, folder, [it.tokens.tolist(), OTHER.tolist()])
    assert it.error(first[list(POSITIONS)]) <= LIMIT
    np.testing.assert_array_equal(first[PROMPT - 1 : -1].argmax(-1), it.tokens[PROMPT:])
    require_parity(second, in_numpy(spec, folder, OTHER))


@pytest.mark.parametrize("name", ["llama-tied", "granite", "qwen3-moe"])
def test_weights_that_stay_bfloat16(in_mindspore, name, tmp_path):
    """Embedding, head, layers and experts; for Granite some are scaled, which bfloat16 could not hold exactly."""
    it = CHECKPOINTS[name]
    folder, spec = it.save(tmp_path, bfloat16=True), read_spec(it.config)
    first, second = in_mindspore(scenarios.mixed, folder, [it.tokens.tolist(), OTHER.tolist()])
    for tokens, found in ((it.tokens, first), (OTHER, second)):
        expected = in_numpy(spec, folder, tokens)
        require_parity(found, expected)
        np.testing.assert_array_equal(found.argmax(-1), expected.argmax(-1))


def in_numpy(spec: Spec, folder: Path, tokens: np.ndarray) -> np.ndarray:
    weights = {weight.name: weight.read(np.float32) for weight in canonical_weights(spec, folder)}
    return NumpyDecoder(spec, weights).logits(tokens)


def require_parity(found: np.ndarray, expected: np.ndarray) -> None:
    assert (np.abs(found - expected).max(1) / expected.std(1)).max() <= LIMIT
