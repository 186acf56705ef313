"""Small random checkpoints of many families: configuration, names and shapes of tensors as transformers stores them,
weights from numpy's generator, and what transformers answers (families.json, references.npz).

scripts/tools/make_family_fixture.py makes the two files, with `make_tensor` of this module.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.model.numpy_llama import write_safetensors

FOLDER = Path(__file__).parent
POSITIONS = (0, 15, 39, 62)
"""Of which logits are stored: of the prompt's 40 tokens and the answer's 24."""
PROMPT, ANSWER = 40, 24


def make_tensor(family: str, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Large enough, and norms and biases so far from 1 and 0, that whatever is forgotten shows."""
    generator = np.random.default_rng(zlib.crc32(f"{family}/{name}".encode()))
    values = generator.standard_normal(shape, np.float32)
    gemma = family.startswith("gemma")
    if "norm" in name:
        scaled = (0.0 if gemma else 1.0) + 0.3 * values
    elif name.endswith("bias"):
        scaled = 0.5 * values
    elif any(part in name for part in ("embed_tokens", "tok_embeddings", "lm_head", "output.weight")):
        scaled = (0.1 if gemma else 0.4) * values
    else:
        scaled = values * (1.5 / shape[-1] ** 0.5)
    return scaled.astype(np.float32)


@dataclass(frozen=True)
class Checkpoint:
    name: str
    config: dict[str, Any]
    shapes: dict[str, list[int]]
    tokens: NDArray[np.int32]  # [PROMPT + ANSWER] the latter greedy
    logits: NDArray[np.float32]  # [len(POSITIONS), vocab]

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        return {name: make_tensor(self.name, name, tuple(shape)) for name, shape in self.shapes.items()}

    def save(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        write_safetensors(folder / "model.safetensors", self.tensors())
        return folder

    def error(self, logits: NDArray[Any]) -> float:
        """Largest difference at `POSITIONS`, in standard deviations of each position's logits."""
        difference = np.abs(logits - self.logits).max(1) / self.logits.std(1)
        return float(np.where(np.isfinite(difference), difference, np.inf).max())


def load() -> dict[str, Checkpoint]:
    arrays = np.load(FOLDER / "references.npz")
    described = json.loads((FOLDER / "families.json").read_text())
    return {
        name: Checkpoint(name, it["config"], it["tensors"], arrays[f"{name}.tokens"], arrays[f"{name}.logits"])
        for name, it in described.items()
    }
