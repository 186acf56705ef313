"""A tensor inside a checkpoint file: found by reading headers only, converted when it is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from model.errors import CheckpointError

Float = NDArray[np.floating[Any]]
Dtype = type[np.floating[Any]]

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
        """The tensor as a new array of ``dtype``."""
        raw = b"".join(self._read_pieces())
        values: NDArray[Any]
        if self.dtype == "bfloat16":
            values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw, np.float32 if self.dtype == "float32" else np.float16)
        return values.reshape(self.shape).astype(dtype)

    def _read_pieces(self) -> list[bytes]:
        try:
            with self.file.open("rb") as file:
                return [_read_exactly(file, offset, size) for offset, size in self.pieces]
        except (OSError, EOFError) as error:
            raise CheckpointError(f"{self.file}: cannot read tensor {self.name}: {error}") from error


def _read_exactly(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise EOFError(f"expected {size} bytes at {offset}, got {len(data)}")
    return data
