"""Small random checkpoints of many families: configuration, names and shapes of tensors as transformers stores them,
weights from numpy's generator, and what transformers answers (families.json, references.npz).

scripts/tools/make_family_fixture.py makes the two files.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.lab.paths import ROOT
from scripts.tools.family_weights import make_tensor

FOLDER = ROOT / "tests" / "model" / "families"
_ANSWERS = ("tokens", "logits", "logprobs")


@dataclass(frozen=True)
class Checkpoint:
    name: str
    config: dict[str, Any]
    shapes: dict[str, list[int]]
    tokens: NDArray[np.int32]  # [PROMPT + ANSWER] the latter greedy
    logits: NDArray[np.float32]  # [len(POSITIONS), vocab]
    logprobs: NDArray[np.float32]  # [ANSWER] of the answer's tokens

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        return {name: make_tensor(self.name, name, tuple(shape)) for name, shape in self.shapes.items()}

    def save(self, folder: Path, bfloat16: bool = False) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        write_safetensors(folder / "model.safetensors", self.tensors(), "BF16" if bfloat16 else "F32")
        return folder

    def error(self, logits: NDArray[Any]) -> float:
        """Largest difference at `POSITIONS`, in standard deviations of each position's logits."""
        difference = np.abs(logits - self.logits).max(1) / self.logits.std(1)
        return float(np.where(np.isfinite(difference), difference, np.inf).max())


def load() -> dict[str, Checkpoint]:
    arrays = np.load(FOLDER / "references.npz")
    described = json.loads((FOLDER / "families.json").read_text())
    return {
        name: Checkpoint(name, it["config"], it["tensors"], *(arrays[f"{name}.{what}"] for what in _ANSWERS))
        for name, it in described.items()
    }


def older(config: dict[str, Any]) -> dict[str, Any]:
    """A config.json as transformers 4 wrote it."""
    old = {key: value for key, value in config.items() if key not in {"rope_parameters", "dtype", "layer_types"}}
    rope = dict(config.get("rope_parameters") or {})
    if "full_attention" in rope:  # Gemma 3
        full, local = rope["full_attention"], rope["sliding_attention"]
        return {**old, "rope_theta": full["rope_theta"], "rope_local_base_freq": local["rope_theta"]}
    part = rope.pop("partial_rotary_factor", None)
    theta, kind = rope.pop("rope_theta", 10000.0), rope.pop("rope_type", "default")
    scaling = None if kind == "default" else {"type": kind, **rope}
    part_there = {} if part is None else {"partial_rotary_factor": part}
    return {**old, "rope_theta": theta, "rope_scaling": scaling, "torch_dtype": config["dtype"], **part_there}


def write_safetensors(file: Path, tensors: Mapping[str, NDArray[Any]], dtype: str = "F32") -> None:
    """In F32, F16, or BF16, which is rounded towards zero."""
    header: dict[str, Any] = {}
    data = b""
    for name, array in tensors.items():
        raw = array.astype("<f2" if dtype == "F16" else "<f4").tobytes()
        if dtype == "BF16":
            raw = (np.frombuffer(raw, "<u4") >> 16).astype("<u2").tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": array.shape,
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)
