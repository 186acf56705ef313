"""Every family against transformers: spec and canonical weights, in numpy. And that each feature of a spec matters:
without it the same logits are far off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.checkpoint.files import index_files
from model.families import Experts, Spec, canonical, read_spec
from model.families.canonical import read_recipe, recipes
from model.families.rope import Rope
from scripts.tools.family_weights import POSITIONS, PROMPT
from tests.model.families.checkpoints import Checkpoint, load
from tests.model.numpy_decoder import NumpyDecoder

CHECKPOINTS = load()
LIMIT = 1e-4  # of the standard deviation of a position's logits
MISSED = 10 * LIMIT
NEEDS_OTHERS = ("experts.dense_layers", "norms", "rotated", "tied_embeddings")


@pytest.fixture(scope="module", params=CHECKPOINTS)
def checkpoint(request, tmp_path_factory) -> tuple[Checkpoint, Path]:
    it = CHECKPOINTS[request.param]
    return it, it.save(tmp_path_factory.mktemp(it.name))


def logits_of(spec: Spec, folder: Path, tokens: np.ndarray) -> np.ndarray:
    """By recipes alone: whether the checkpoint fits the spec is not asked."""
    stored, shapes = index_files(folder), spec.tensors()
    weights = {name: read_recipe(it, shapes[name], stored, np.float32) for name, it in recipes(spec).items()}
    return NumpyDecoder(spec, weights).logits(tokens)


def without(value: Any) -> Iterator[tuple[str, Any]]:
    """A description with one feature of its switched off, for each that is on."""
    for field in fields(value):
        given = getattr(value, field.name)
        if field.name == "ropes":
            for number, rope in enumerate(given):
                if rope != Rope(10000.0):
                    others = (*given[:number], Rope(10000.0), *given[number + 1 :])
                    yield f"ropes[{number}]", replace(value, ropes=others)
        elif is_dataclass(given):
            yield from ((f"{field.name}.{name}", replace(value, **{field.name: it})) for name, it in without(given))
        elif field.default is not MISSING and given != field.default:
            yield field.name, replace(value, **{field.name: field.default})


def test_logits_and_greedy_tokens(checkpoint):
    it, folder = checkpoint
    spec = read_spec(it.config)
    weights = {weight.name: weight.read(np.float32) for weight in canonical(spec, index_files(folder), folder)}
    assert {name: array.shape for name, array in weights.items()} == spec.tensors()
    logits = NumpyDecoder(spec, weights).logits(it.tokens)
    assert it.error(logits[list(POSITIONS)]) <= LIMIT
    np.testing.assert_array_equal(logits[PROMPT - 1 : -1].argmax(-1), it.tokens[PROMPT:])


def test_every_feature_matters(checkpoint):
    it, folder = checkpoint
    for name, changed in without(read_spec(it.config)):
        try:
            error = it.error(logits_of(changed, folder, it.tokens)[list(POSITIONS)])
        except (KeyError, ValueError):  # without it other tensors are needed, or another rope
            assert name in NEEDS_OTHERS
        else:
            assert error > MISSED, name


def test_every_feature_is_in_some_checkpoint():
    features = {name for it in CHECKPOINTS.values() for name, _ in without(read_spec(it.config))}
    optional = {field.name for field in fields(Spec) if field.default is not MISSING} - {"experts"}
    optional |= {f"experts.{field.name}" for field in fields(Experts) if field.default is not MISSING}
    assert optional <= features
