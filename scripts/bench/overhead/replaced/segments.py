"""The nine segments, and the text commands that say what lies in them."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from numpy.typing import NDArray

INPUT_IDS, VALID_LENGTH, CURRENT_INDEX, GENERATION, MASK, OUTPUTS, LOGITS, BLOCK_TABLES, SLOT_MAPPING = range(9)
GENERATION_WORDS = 8


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
    def words(self) -> tuple[int, ...]:
        """Of 4 bytes, by segment."""
        rows, length = self.rows, self.length
        return (rows * length, rows, rows, rows * GENERATION_WORDS, rows, rows, rows, rows * self.width, length)


def create_segments(sizes: Sizes) -> list[SharedMemory]:
    return [SharedMemory(create=True, size=4 * words) for words in sizes.words]


def array(segment: SharedMemory, shape: tuple[int, ...], dtype: Any = np.int32) -> NDArray[Any]:
    return np.ndarray(shape, dtype, buffer=segment.buf)


def decode_command(batch: int, valid: list[int], tables: tuple[int, ...], slots: tuple[int, ...]) -> bytes:
    flags = "".join(str(flag) for flag in valid)
    return f"a_{batch}_{flags}_{shape_text(tables)}_{shape_text(slots)}".encode()


def prefill_command(*shapes: tuple[int, ...]) -> bytes:
    return ("*" + "_".join(shape_text(shape) for shape in shapes)).encode()


def shape_text(shape: tuple[int, ...]) -> str:
    return ",".join(str(size) for size in shape)


def parse_shape(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(","))
