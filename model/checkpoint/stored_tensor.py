"""A tensor inside a checkpoint file: found by reading headers only, converted when it is read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from model.checkpoint.finite import all_finite, describe_not_finite
from model.errors import CheckpointError, UnusableWeightError

Float = NDArray[np.floating[Any]]
Bits = NDArray[np.uint16]
"""bfloat16, which numpy does not have."""
Dtype = type[np.floating[Any]]

_DAMAGED = "the file is damaged, or its training diverged: download or export it again"
_TOO_LARGE = (
    "Ascend computes in float16 what does not ask for bfloat16: use a checkpoint that fits; where it was trained in "
    "bfloat16, say so (dtype in config.json, compute_dtype in a mindformers YAML); or use "
    "pipeline.runner.device: CPU, which has float32"
)

ITEM_SIZES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor's bytes lie. Large MindSpore tensors come in several pieces."""

    name: str
    dtype: str  # a key of ITEM_SIZES
    shape: tuple[int, ...]
    file: Path
    pieces: tuple[tuple[int, int], ...]  # (offset, bytes)

    def __post_init__(self) -> None:
        if self.dtype not in ITEM_SIZES:
            raise CheckpointError(
                f"{self.file}: tensor {self.name} has dtype {self.dtype}; supported are {', '.join(ITEM_SIZES)}"
            )
        expected = int(np.prod(self.shape, dtype=np.int64)) * ITEM_SIZES[self.dtype]
        actual = sum(size for _, size in self.pieces)
        if actual != expected:
            raise CheckpointError(
                f"{self.file}: tensor {self.name} of shape {self.shape} and {self.dtype} needs {expected} "
                f"bytes, but {actual} are stored"
            )

    def read(self, dtype: Dtype) -> Float:
        """The tensor as a new array of ``dtype``. Raises CheckpointError when it can't be read, and its subclass
        UnusableWeightError unless every value is a number in the file, and in ``dtype``."""
        if self.dtype == "bfloat16":
            return self._convert(_widen(self.read_bits()), dtype)
        raw = b"".join(self._read_pieces())
        stored = np.float32 if self.dtype == "float32" else np.float16
        values: NDArray[Any] = np.frombuffer(raw, stored).reshape(self.shape)
        if not all_finite(values, self.dtype):
            self._refuse(describe_not_finite(values), _DAMAGED)
        return self._convert(values, dtype)

    def read_bits(self) -> Bits:
        """A tensor of bfloat16 as it is stored. Raises what `read` does."""
        bits = np.frombuffer(b"".join(self._read_pieces()), "<u2").reshape(self.shape)
        if not all_finite(bits, self.dtype):
            self._refuse(describe_not_finite(_widen(bits)), _DAMAGED)
        return bits

    def take_rows(self, rows: tuple[tuple[int, int], ...]) -> StoredTensor:
        """Runs of rows, first and end of each, one behind the other: a tensor of which only their bytes are read."""
        row = math.prod(self.shape[1:]) * ITEM_SIZES[self.dtype]
        pieces = [piece for first, end in rows for piece in self._bytes(first * row, end * row)]
        length = sum(end - first for first, end in rows)
        return replace(self, shape=(length, *self.shape[1:]), pieces=tuple(pieces))

    def _bytes(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """Where these bytes of the tensor lie."""
        for offset, size in self.pieces:
            low, high = max(first, 0), min(end, size)
            if low < high:
                yield offset + low, high - low
            first, end = first - size, end - size

    def _convert(self, values: NDArray[Any], dtype: Dtype) -> Float:
        with np.errstate(over="ignore"):
            converted: Float = values.astype(dtype)
        if np.finfo(dtype).max < np.finfo(values.dtype).max and not all_finite(converted, np.dtype(dtype).name):
            count, largest = np.count_nonzero(~np.isfinite(converted)), np.abs(values).max()
            what = (
                f"{count} of {values.size} values do not fit into {np.dtype(dtype).name} (the largest is {largest:g})"
            )
            self._refuse(what, _TOO_LARGE)
        return converted

    def _refuse(self, what: str, remedy: str) -> NoReturn:
        raise UnusableWeightError(f"{self.file}: tensor {self.name}: {what}", remedy)

    def _read_pieces(self) -> list[bytes]:
        try:
            with self.file.open("rb") as file:
                return [_read_exactly(file, offset, size) for offset, size in self.pieces]
        except (OSError, EOFError) as error:
            raise CheckpointError(f"{self.file}: cannot read tensor {self.name}: {error}") from error


def _widen(bits: Bits) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _read_exactly(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise EOFError(f"expected {size} bytes at {offset}, got {len(data)}")
    return data
