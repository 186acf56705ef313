"""What an adapter adds to a decoder's weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.adapters.configuration import CONFIG_FILE
from model.checkpoint.finite import all_finite
from model.checkpoint.stored_tensor import Dtype, Float, StoredTensor
from model.checkpoint.weight import Weight
from model.errors import CheckpointError, UnusableWeightError
from model.families.canonical import Part

WEIGHTS_FILE = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class Change:
    """Of some rows of a weight: ``weight[first : first + rows] += b @ a``."""

    first: int
    part: Part  # that these rows are made of: what is folded into them is folded into ``b``, too
    stored_a: StoredTensor
    stored_b: StoredTensor
    scale: float

    @property
    def rank(self) -> int:
        return self.stored_a.shape[0]

    @property
    def rows(self) -> int:
        return self.part.length

    @property
    def inputs(self) -> int:
        return self.stored_a.shape[1]

    def a(self) -> NDArray[np.float32]:
        """``[rank, inputs]``. Raises CheckpointError, and its subclass for values that are not finite."""
        return self.stored_a.read(np.float32)

    def b(self) -> NDArray[np.float32]:
        """``[rows, rank]``, with all scales, and its rows in the decoder's order. Raises what `a` does."""
        part = replace(self.part, shape=self.stored_b.shape, scale=self.part.scale * self.scale)
        with np.errstate(over="ignore", invalid="ignore"):
            values = part.read({part.source: self.stored_b}, np.float32)
        if not all_finite(values, "float32"):
            raise UnusableWeightError(
                f"{self.stored_b.file}: tensor {self.stored_b.name} times its scale, {part.scale:g}, does not fit "
                "into float32",
                "is lora_alpha right?",
            )
        return values


@dataclass(frozen=True, slots=True)
class Adapter:
    """A folder that fits the decoder. Its tensors are read when they are asked for."""

    folder: Path
    rank: int  # the largest
    changes: Mapping[str, tuple[Change, ...]]  # by the name of a linear layer, such as "layers.3.gate_up"

    def fingerprint(self) -> bytes:
        """SHA-256 of the folder's two files, which are read for it. Raises CheckpointError."""
        digest = hashlib.sha256()
        try:
            for file in adapter_files(self.folder):
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise CheckpointError(f"cannot read adapter {self.folder}: {error}") from error
        return digest.digest()

    @property
    def size_bytes(self) -> int:
        """In float32, as it is kept beside a model's weights."""
        every = (change for some in self.changes.values() for change in some)
        return sum(4 * change.rank * (change.inputs + change.rows) for change in every)

    def merged_into(self, weights: Sequence[Weight]) -> tuple[Weight, ...]:
        """The weights of a model that has learnt what the adapter has.

        What changes is added up in float32 and stays float32, where the engine has that: bfloat16 has no room for
        small changes of large values.
        """
        return tuple(self._merged(weight) for weight in weights)

    def _merged(self, weight: Weight) -> Weight:
        changes = self.changes.get(weight.name.removesuffix(".weight"))
        if changes is None:
            return weight
        return replace(weight, read=partial(self._read, weight, changes), read_bits=None)

    def _read(self, weight: Weight, changes: tuple[Change, ...], dtype: Dtype) -> Float:
        values = weight.read(np.float32)
        for change in changes:
            values[change.first : change.first + change.rows] += change.b() @ change.a()
        with np.errstate(over="ignore"):
            values = values.astype(dtype, copy=False)
        if not all_finite(values, np.dtype(dtype).name):
            raise UnusableWeightError(
                f"{weight.name} and what {self.folder} adds to it do not fit into {np.dtype(dtype).name}",
                "does the adapter belong to this model?",
            )
        return values


def adapter_files(folder: Path) -> tuple[Path, Path]:
    """The configuration and the tensors, if they are there."""
    return folder / CONFIG_FILE, folder / WEIGHTS_FILE
