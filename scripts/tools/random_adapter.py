"""Adapters of random numbers, as PEFT saves them, for measurements and trials."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.families import read_spec_file
from model.families.canonical import recipes


def write_adapter(model: Path, place: Path, *, rank: int, seed: int, scale: float = 0.02) -> Path:
    """Of all linear layers of the model whose folder that is; `scale`: standard deviation of its numbers."""
    generator = np.random.default_rng(seed)
    tensors: dict[str, NDArray[Any]] = {}
    for name, recipe in recipes(read_spec_file(model)).items():
        for part in recipe if name.startswith("layers.") else ():
            if len(part.shape) > 1:
                module = f"base_model.model.{part.source.removesuffix('.weight')}"
                for letter, shape in (("A", (rank, part.shape[1])), ("B", (part.shape[0], rank))):
                    values = generator.standard_normal(shape, np.float32)
                    tensors[f"{module}.lora_{letter}.weight"] = values * np.float32(scale)
    place.mkdir()
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": "all-linear"}
    (place / "adapter_config.json").write_text(json.dumps(settings))
    save(tensors, place / "adapter_model.safetensors", "F32")
    return place


def save(tensors: dict[str, NDArray[Any]], file: Path, dtype: str) -> None:
    """As safetensors; numpy's own writer has no bfloat16."""
    header, end = {}, 0
    for name, array in tensors.items():
        offsets = [end, end := end + array.nbytes]
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": offsets}
    text = json.dumps(header).encode()
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.writelines(array.tobytes() for array in tensors.values())
