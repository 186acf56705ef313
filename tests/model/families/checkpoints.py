"""Small random checkpoints of many families: configuration, names and shapes of tensors as transformers stores them,
weights from numpy's generator, and what transformers answers (families.json, references.npz).

scripts/tools/make_family_fixture.py makes the two files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.tools.family_weights import make_tensor
from tests.model.numpy_llama import write_safetensors

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Checkpoint:
    name: str
    config: dict[str, Any]
    shapes: dict[str, list[int]]
    tokens: NDArray[np.int32]  # [PROMPT + ANSWER] the latter greedy
    logits: NDArray[np.float32]  # [len(POSITIONS), vocab]

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        return {name: make_tensor(self.name, name, tuple(shape)) for name, shape in self.shapes.items()}

    def save(self, folder: Path, bfloat16: bool = False) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        write_safetensors(folder / "model.safetensors", self.tensors(), bfloat16)
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
