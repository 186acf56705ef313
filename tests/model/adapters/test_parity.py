"""Answers with adapters: against PEFT itself, and against checkpoints whose stored tensors were changed; merged, and
several beside one model in the decoder's graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.adapters import model_weights
from model.families import canonical_weights, read_spec
from tests.model.adapters.folders import Lora, Tensors
from tests.model.families.checkpoints import Checkpoint, load
from tests.model.mindspore_runner import scenarios
from tests.model.numpy_decoder import NumpyDecoder
from tests.model.numpy_llama import write_safetensors

CHECKPOINTS = load()
PEFT = Path(__file__).parent / "peft"
LIMIT = 1e-4  # of the standard deviation of a position's logits
MISSED = 0.5
THREE = np.random.default_rng(2).integers(3, 256, (3, scenarios.LENGTH))


def off(found: np.ndarray, expected: np.ndarray) -> float:
    return (np.abs(found - expected).max(1) / expected.std(1)).max()


def require_parity(found: np.ndarray, expected: np.ndarray) -> None:
    assert off(found, expected) <= LIMIT
    np.testing.assert_array_equal(found.argmax(-1), expected.argmax(-1))


def logits_of(
    it: Checkpoint, stored: Tensors, folder: Path, tokens: np.ndarray, bfloat16: bool = False
) -> np.ndarray:
    """Of a checkpoint with these tensors."""
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", stored, "BF16" if bfloat16 else "F32")
    spec = read_spec(it.config)
    weights = {weight.name: weight.read(np.float32) for weight in canonical_weights(spec, folder)}
    return NumpyDecoder(spec, weights).logits(tokens)


@pytest.mark.parametrize("name", ["qwen2", "phi3"])
def test_merged_as_peft_computes(name, tmp_path):
    it, folder = CHECKPOINTS[name], PEFT / name
    spec, reference = read_spec(it.config), np.load(folder / "reference.npz")
    merged = model_weights(spec, it.save(tmp_path / "base"), folder)
    weights = {weight.name: weight.read(np.float32) for weight in merged}
    require_parity(NumpyDecoder(spec, weights).logits(reference["tokens"]), reference["logits"])
    assert off(logits_of(it, it.tensors(), tmp_path / "plain", reference["tokens"]), reference["logits"]) > MISSED


def test_beside_the_model_as_peft_computes(in_mindspore, tmp_path):
    it, folder = CHECKPOINTS["qwen2"], PEFT / "qwen2"
    reference = np.load(folder / "reference.npz")
    tokens = reference["tokens"].tolist()
    first, second = in_mindspore(scenarios.mixed, it.save(tmp_path / "it"), [tokens] * 2, (1, 0), adapters=(folder,))
    require_parity(first, reference["logits"])
    require_parity(second, logits_of(it, it.tensors(), tmp_path / "plain", reference["tokens"]))


@pytest.mark.parametrize("name", ["qwen2-window", "gemma2", "granite", "glm4", "phi3", "internlm2", "qwen2-moe"])
def test_several_beside_one_model(in_mindspore, name, tmp_path):
    """Of other ranks, one of a few layers only; and rows without one. Each is another model's answer."""
    it = CHECKPOINTS[name]
    loras = (Lora(it, seed=1, rank=3), Lora(it, seed=2, rank=19, targets=_attention(it)))
    folders = tuple(lora.save(tmp_path / str(lora.seed)) for lora in loras)
    found = in_mindspore(scenarios.mixed, it.save(tmp_path / "it"), THREE.tolist(), (2, 1, 0), adapters=folders)
    stored = (loras[1].merged(), loras[0].merged(), it.tensors())
    for number, tensors in enumerate(stored):
        require_parity(found[number], logits_of(it, tensors, tmp_path / f"changed{number}", THREE[number]))
        other = stored[number - 1]
        assert off(found[number], logits_of(it, other, tmp_path / f"other{number}", THREE[number])) > MISSED


def _attention(it: Checkpoint) -> tuple[str, ...]:
    """Modules of the second layer's attention, by their whole names."""
    names = (name.removesuffix(".weight") for name, shape in it.shapes.items() if len(shape) == 2)
    return tuple(name for name in names if "layers.1" in name and "att" in name)


@pytest.mark.parametrize("name", ["llama-tied", "granite"])
def test_beside_weights_of_bfloat16_and_merged_with_them(in_mindspore, name, tmp_path):
    """The same answers, to float32's exactness."""
    it, lora = CHECKPOINTS[name], Lora(CHECKPOINTS[name])
    base, folder = it.save(tmp_path / "it", bfloat16=True), lora.save(tmp_path / "adapter", bfloat16=True)
    beside = in_mindspore(scenarios.mixed, base, THREE[:2].tolist(), (1, 0), adapters=(folder,))
    merged = in_mindspore(scenarios.mixed, base, THREE[:2].tolist(), merged_adapter=folder)
    require_parity(beside[0], merged[0])
    assert off(beside[1], merged[1]) > MISSED
    require_parity(beside[1], logits_of(it, it.tensors(), tmp_path / "plain", THREE[1], bfloat16=True))
