"""Small random adapters of the families' checkpoints, as PEFT saves them, and what they make of the stored tensors:
independent of everything in model/adapters."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.tools.family_weights import make_tensor
from tests.model.families.checkpoints import Checkpoint
from tests.model.numpy_llama import write_safetensors

Tensors = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Lora:
    """Of every linear layer that is not an expert's and whose name ends with one of ``targets``; all of them without.
    Large enough that it changes most of the answer."""

    checkpoint: Checkpoint
    seed: int = 0
    rank: int = 4
    targets: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    ranks: Mapping[str, int] = field(default_factory=dict)  # by ends of names
    scales: Mapping[str, float] = field(default_factory=dict)  # the configuration says these, in another way
    prefix: str = "base_model.model."
    infix: str = ""

    def modules(self) -> dict[str, tuple[int, int]]:
        """Outputs and inputs, by name."""
        names = {name.removesuffix(".weight"): shape for name, shape in self.checkpoint.shapes.items()}
        return {
            name: (shape[0], shape[1])
            for name, shape in names.items()
            if len(shape) == 2 and "layers." in name and ".experts." not in name
            if not self.targets or name.endswith(self.targets)
        }

    def matrices(self, module: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        outputs, inputs = self.modules()[module]
        rank = _by_end(self.ranks, module, self.rank)
        key = f"{self.checkpoint.name}/{self.seed}"
        return (
            make_tensor(key, f"{module}.A", (rank, inputs)),
            make_tensor(key, f"{module}.B", (outputs, rank)) / np.float32(math.sqrt(2)),
        )

    def tensors(self) -> Tensors:
        """By PEFT's names."""
        found: Tensors = {}
        for module in self.modules():
            for letter, matrix in zip("AB", self.matrices(module), strict=True):
                found[f"{self.prefix}{module}.lora_{letter}.{self.infix}weight"] = matrix
        return found

    def configuration(self) -> dict[str, Any]:
        """With a scale of 1, and keys of PEFT 0.21 that change nothing."""
        return {
            "peft_type": "LORA",
            "peft_version": "0.21.2",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": "some/base",
            "r": self.rank,
            "lora_alpha": self.rank,
            "lora_dropout": 0.05,
            "target_modules": sorted(self.targets or self.modules()),
            "rank_pattern": {},
            "alpha_pattern": {},
            "bias": "none",
            "init_lora_weights": True,
            "inference_mode": True,
            "megatron_core": "megatron.core",
            "modules_to_save": None,
            "use_dora": False,
            **self.config,
        }

    def save(self, folder: Path, bfloat16: bool = False) -> Path:
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text(json.dumps(self.configuration()))
        write_safetensors(folder / "adapter_model.safetensors", self.tensors(), "BF16" if bfloat16 else "F32")
        return folder

    def merged(self, stored: Tensors | None = None) -> Tensors:
        """The checkpoint's stored tensors, changed."""
        changed = self.checkpoint.tensors() if stored is None else dict(stored)
        for module in self.modules():
            a, b = (matrix.astype(np.float64) for matrix in self.matrices(module))
            name = f"{module}.weight"
            changed[name] = (changed[name] + _by_end(self.scales, module, 1.0) * b @ a).astype(np.float32)
        return changed


def _by_end(values: Mapping[str, Any], module: str, default: Any) -> Any:
    return next((value for end, value in values.items() if module.endswith(end)), default)
