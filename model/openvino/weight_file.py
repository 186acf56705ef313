"""Where a decoder's weights lie, converted: in a mapped file, or in memory where no folder is given for it.

The plugin packs matrices into its own layout and keeps the constants it packed from. Of a file these need no memory:
pages go when they are not used, and come back should they be. int8 weights are made once and their file is kept,
named by all that they depend on; other weights have one that is gone with the process.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from model.checkpoint.weight import Weight
from model.openvino.int8_products import packed_bytes, padded_rows
from model.openvino.kept import PARTIAL, PREFIX, Kept, open_shared
from model.openvino.settings import WeightDtype

_ALIGNMENT = 64
_ITEM_SIZES = {"float32": 4, "uint16": 2, "int8": 1}


@dataclass(frozen=True, slots=True)
class Array:
    """Values of a weight, and of an int8 matrix the factor of each row ``[N, 1]``."""

    values: NDArray[Any]  # float32, uint16 (the bits of bfloat16), int8, or uint8 as `int8_products.pack` makes them
    scale: NDArray[np.float32] | None = None
    packed: tuple[int, ...] | None = None  # the shape of what was packed; ``scale`` is ``[N]`` then, and padded


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a weight lies in the file; the factors of an int8 matrix lie before it."""

    kind: str  # a key of _ITEM_SIZES, or "packed"
    shape: tuple[int, ...]
    offset: int

    @property
    def end(self) -> int:
        if self.kind == "packed":
            return self._values + packed_bytes(self.shape)
        return self._values + math.prod(self.shape) * _ITEM_SIZES[self.kind]

    @property
    def _values(self) -> int:
        return self.offset + (_aligned(4 * padded_rows(self.shape[0])) if self.kind in {"int8", "packed"} else 0)

    def view(self, memory: mmap.mmap) -> Array:
        """Over the mapping, which it keeps."""
        if self.kind == "packed":
            scale = np.frombuffer(memory, np.float32, padded_rows(self.shape[0]), self.offset)
            return Array(np.frombuffer(memory, np.uint8, packed_bytes(self.shape), self._values), scale, self.shape)
        values = np.frombuffer(memory, self.kind, math.prod(self.shape), self._values).reshape(self.shape)
        if self.kind != "int8":
            return Array(values)
        return Array(values, np.frombuffer(memory, np.float32, self.shape[0], self.offset)[:, None])


def plan(weights: Sequence[Weight], dtype: WeightDtype | None, *, packs_int8: bool = False) -> dict[str, Slot]:
    """Only matrices become narrower. An embedding is read by rows, for which bfloat16 will do; a head that is
    tied to it is read whole, and becomes a matrix of its own. ``packs_int8``: for our own products."""
    int8 = "packed" if packs_int8 else "int8"
    slots: dict[str, Slot] = {}
    end = 0
    for weight in weights:
        slots[weight.name] = slot = Slot(_kind(weight, dtype, int8), weight.shape, _aligned(end))
        end = slot.end
    if dtype == "int8" and "head.weight" not in slots:
        slots["head.weight"] = Slot(int8, slots["embed.weight"].shape, _aligned(end))
    return slots


def _kind(weight: Weight, dtype: WeightDtype | None, int8: str) -> str:
    if len(weight.shape) == 1 or dtype == "f32":
        return "float32"
    if dtype is None:
        return "uint16" if weight.keeps_bfloat16 else "float32"
    return int8 if dtype == "int8" and weight.name != "embed.weight" else "uint16"


class WeightFile:
    """Mapped memory with the slots of a plan."""

    def __init__(self, memory: mmap.mmap, slots: dict[str, Slot], *, is_file: bool) -> None:
        self.arrays = {name: slot.view(memory) for name, slot in slots.items()}
        self._memory, self._slots, self._is_file = memory, slots, is_file

    def hold(self, file: IO[bytes]) -> None:
        """Keep it open, with its lock, as long as this lives."""
        weakref.finalize(self, file.close)

    def flush(self) -> None:
        """To the disk."""
        self._memory.flush()

    def release(self, name: str | None = None) -> None:
        """Give the memory back, of all weights or of one. They stay readable."""
        if not self._is_file:
            return
        first, end = 0, len(self._memory)
        if name is not None:
            first, end = self._slots[name].offset // mmap.PAGESIZE * mmap.PAGESIZE, self._slots[name].end
        self._memory.madvise(mmap.MADV_DONTNEED, first, end - first)


def in_memory(slots: dict[str, Slot]) -> WeightFile:
    """Zeros, to be filled."""
    return WeightFile(mmap.mmap(-1, size_of(slots), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), slots, is_file=False)


@contextmanager
def new_file(slots: dict[str, Slot], folder: Path, kept: Kept | None) -> Iterator[WeightFile]:
    """Zeros, to be filled by the end of the context; then it has its name, if it is to be kept. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _temporary(folder, named=kept is not None) as file:
        size = size_of(slots)
        os.posix_fallocate(file.fileno(), 0, size)  # a full disk would be a SIGBUS later
        weights = WeightFile(mmap.mmap(file.fileno(), size), slots, is_file=True)
        yield weights
        if kept is not None:
            weights.flush()  # else it could be zeros under that name after a power cut
            os.pwrite(file.fileno(), kept.note, size)
            os.fsync(file.fileno())
            fcntl.flock(file, fcntl.LOCK_SH)  # it is complete, and still in use
            Path(file.name).rename(folder / kept.name)
            weights.hold(open_shared(folder / kept.name))


def kept_file(slots: dict[str, Slot], folder: Path, kept: Kept) -> WeightFile | None:
    """What an earlier process left."""
    size = size_of(slots)
    with suppress(OSError):
        file = open_shared(folder / kept.name)
        if os.fstat(file.fileno()).st_size != size + len(kept.note):
            file.close()
            return None
        weights = WeightFile(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ), slots, is_file=True)
        weights.hold(file)
        return weights
    return None


@contextmanager
def _temporary(folder: Path, *, named: bool) -> Iterator[IO[bytes]]:
    """Locked as long as somebody writes to it, if it has a name at all."""
    if not named:
        with tempfile.TemporaryFile(dir=folder) as file:
            yield file
        return
    with tempfile.NamedTemporaryFile(dir=folder, prefix=PREFIX, suffix=PARTIAL, delete=False) as it:
        fcntl.flock(it, fcntl.LOCK_EX)
        try:
            yield it
        finally:
            Path(it.name).unlink(missing_ok=True)


def size_of(slots: dict[str, Slot]) -> int:
    """Bytes of a file with them."""
    return max(slot.end for slot in slots.values())


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT
