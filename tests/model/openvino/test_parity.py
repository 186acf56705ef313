"""The engine's graph against transformers, for every family that it computes; and what narrow types cost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from model.adapters import model_weights
from model.demo import DEMO_DIR
from model.families import Spec, canonical_weights, read_spec, read_spec_file
from model.openvino.requirements import computes_bfloat16, unsupported_feature
from scripts.lab.paths import ROOT
from scripts.tools.family_weights import POSITIONS, PROMPT
from tests.model.adapters.folders import Lora
from tests.model.conftest import needs_openvino
from tests.model.families.checkpoints import load
from tests.model.numpy_decoder import NumpyDecoder
from tests.model.openvino import scenarios

pytestmark = needs_openvino

CHECKPOINTS = load()
COMPUTED = [name for name, it in CHECKPOINTS.items() if unsupported_feature(read_spec(it.config)) is None]
OTHER = np.random.default_rng(1).integers(3, 256, scenarios.LENGTH)
LIMIT = 1e-4  # of the standard deviation of a position's logits
needs_bfloat16 = pytest.mark.skipif(not computes_bfloat16(), reason="the processor has no arithmetic in bfloat16")


@pytest.mark.parametrize("name", COMPUTED)
def test_mixed_steps(in_openvino, name, tmp_path):
    """Beyond the window, which is 12, and over caches that hold NaN where nothing is written yet."""
    it = CHECKPOINTS[name]
    folder, spec = it.save(tmp_path), read_spec(it.config)
    first, second = in_openvino(scenarios.mixed, folder, [it.tokens.tolist(), OTHER.tolist()])
    assert it.error(first[list(POSITIONS)]) <= LIMIT
    np.testing.assert_array_equal(first[PROMPT - 1 : -1].argmax(-1), it.tokens[PROMPT:])
    require_parity(second, in_numpy(spec, folder, OTHER))


def test_most_families_are_computed():
    assert {name.split("-")[0] for name in CHECKPOINTS.keys() - set(COMPUTED)} == {
        "gemma2",
        "mixtral",
        "qwen2",
        "qwen3",
    }
    assert all("moe" in name for name in CHECKPOINTS.keys() - set(COMPUTED) if name.startswith("qwen"))


def test_docs_say_which_families_are_computed():
    rows = [row.split("|") for row in (ROOT / "docs" / "models.md").read_text().splitlines() if row.startswith("| ")]
    told = {row[2].strip(" `"): row[4].strip() for row in rows if len(row) > 6}
    for it in CHECKPOINTS.values():
        spec = read_spec(it.config)
        assert told[spec.family].startswith("no" if unsupported_feature(spec) else "yes")


@pytest.mark.parametrize(("name", "bfloat16"), [("qwen2", False), ("phi3", True), ("granite", True)])
def test_a_merged_adapter(in_openvino, name, bfloat16, tmp_path):
    """What it changes becomes float32, and so does a stack of which it changes a part."""
    it = CHECKPOINTS[name]
    lora = Lora(it, targets=() if name != "granite" else ("q_proj", "down_proj"))
    spec, base = read_spec(it.config), it.save(tmp_path / "base", bfloat16=bfloat16)
    adapter = lora.save(tmp_path / "adapter")
    found, _ = in_openvino(scenarios.mixed, base, [OTHER.tolist()] * 2, merged_adapter=adapter)
    weights = {weight.name: weight.read(np.float32) for weight in model_weights(spec, base, adapter)}
    require_parity(found, NumpyDecoder(spec, weights).logits(OTHER))
    plain = in_numpy(spec, base, OTHER)
    assert (np.abs(found - plain).max(1) / plain.std(1)).max() > 0.5


@pytest.mark.parametrize("name", ["llama-tied", "granite"])
def test_weights_that_stay_bfloat16(in_openvino, name, tmp_path):
    """They are exact. For Granite some are scaled, which bfloat16 could not hold exactly."""
    it = CHECKPOINTS[name]
    folder, spec = it.save(tmp_path, bfloat16=True), read_spec(it.config)
    first, second = in_openvino(scenarios.mixed, folder, [it.tokens.tolist(), OTHER.tolist()])
    for tokens, found in ((it.tokens, first), (OTHER, second)):
        require_parity(found, in_numpy(spec, folder, tokens))


@pytest.mark.parametrize(
    ("changes", "least", "most"),
    [
        ({}, 0, 1e-5),
        ({"kv_dtype": "f16"}, 1e-5, 1e-3),
        ({"kv_dtype": "u8"}, 1e-3, 0.05),
        ({"weight_dtype": "int8"}, 0.01, 0.15),
        ({"weight_dtype": "int8", "own_products": False}, 0.01, 0.15),
        ({"weight_dtype": "int8", "kv_dtype": "u8"}, 0.01, 0.15),
        pytest.param({"weight_dtype": "bf16"}, 0.005, 0.06, marks=needs_bfloat16),
        pytest.param({"weight_dtype": "bf16", "kv_dtype": "u8"}, 0.005, 0.06, marks=needs_bfloat16),
    ],
)
def test_what_narrow_types_cost(in_openvino, golden, changes, least, most):
    """Root of the mean square of the logits' error, whose largest is 22; ``least``: it is narrow indeed."""
    sequences, expected, answers = golden
    found = in_openvino(scenarios.texts, DEMO_DIR, sequences, **changes)
    error = np.sqrt(np.mean((np.concatenate(found) - np.concatenate(expected)) ** 2))
    assert least <= error <= most
    for logits, tokens, answer in zip(found, sequences, answers, strict=True):
        np.testing.assert_array_equal(logits[len(tokens) - answer - 1 : -1].argmax(-1), tokens[-answer:])


@pytest.fixture(scope="module")
def golden():
    """Tokens of the demo model's golden conversations, its logits, and how many tokens of each are the answer."""
    lines = [json.loads(line) for line in (DEMO_DIR / "golden.jsonl").read_text().splitlines()][::2]
    sequences = [line["prompt_ids"] + line["answer_ids"] for line in lines]
    spec = read_spec_file(DEMO_DIR)
    expected = [in_numpy(spec, DEMO_DIR, np.array(tokens)) for tokens in sequences]
    return sequences, expected, [len(line["answer_ids"]) for line in lines]


def in_numpy(spec: Spec, folder: Path, tokens: np.ndarray) -> np.ndarray:
    weights = {weight.name: weight.read(np.float32) for weight in canonical_weights(spec, folder)}
    return NumpyDecoder(spec, weights).logits(tokens)


def require_parity(found: np.ndarray, expected: np.ndarray) -> None:
    assert (np.abs(found - expected).max(1) / expected.std(1)).max() <= LIMIT
