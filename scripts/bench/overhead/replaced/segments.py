"""The nine segments, and the text commands that say what lies in them."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from numpy.typing import NDArray

INPUT_IDS, VALID_LENGTH, CURRENT_INDEX, GENERATION, MASK, OUTPUTS, LOGITS, BLOCK_TABLES, SLOT_MAPPING = range(9)
GENERATION_WORDS = 8
_FLOATS = (GENERATION, LOGITS)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Capacities that server and agent agree on."""

    rows: int
    length: int  # the full sequence length
    block_size: int

    @property
    def width(self) -> int:
        """Of a block table."""
        return self.length // self.block_size

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """By segment, in words of 4 bytes."""
        row = (self.rows,)
        ids, generation, tables = ((self.rows, n) for n in (self.length, GENERATION_WORDS, self.width))
        return (ids, row, row, generation, row, row, row, tables, (self.length,))


class Segments:
    """All nine; those of another process by their names."""

    def __init__(self, sizes: Sizes, names: list[str] | None = None) -> None:
        self._shapes = sizes.shapes
        if names is None:
            self.memory = [SharedMemory(create=True, size=4 * int(np.prod(shape))) for shape in self._shapes]
        else:
            self.memory = [SharedMemory(name=name) for name in names]

    def array(self, which: int, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
        """`shape`: where it is not as the whole segment."""
        dtype = np.float32 if which in _FLOATS else np.int32
        return np.ndarray(shape or self._shapes[which], dtype, buffer=self.memory[which].buf)

    def close(self, *, unlink: bool = False) -> None:
        for segment in self.memory:
            segment.close()
            if unlink:
                segment.unlink()


def decode_command(batch: int, valid: list[int], tables: tuple[int, ...], slots: tuple[int, ...]) -> bytes:
    flags = "".join(str(flag) for flag in valid)
    return f"a_{batch}_{flags}_{_text(tables)}_{_text(slots)}".encode()


def prefill_command(*shapes: tuple[int, ...]) -> bytes:
    return ("*" + "_".join(map(_text, shapes))).encode()


def _text(shape: tuple[int, ...]) -> str:
    return ",".join(str(size) for size in shape)


def parse_shape(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(","))
