"""Writing and reading every byte of a message, the same way for every transport.

numpy needs about 1.5 µs for a sum of eight words, so small messages go through `struct`, which reads 64 bytes in
0.1 µs; from 4 KiB on numpy's sum over a uint64 view is far faster.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

Buffer = Any
Fill = Callable[[Buffer], object]
Touch = Callable[[Buffer], object]

WORD = 0x0102030405060708
_SMALL = 512


def make_fill(size: int) -> Fill:
    """A function that writes `size` bytes, a multiple of 8, into a buffer."""
    if size > _SMALL:
        return lambda buffer: np.frombuffer(buffer, np.uint64).fill(WORD)
    words = size // 8
    pack, values = struct.Struct(f"{words}Q").pack_into, (WORD,) * words
    return lambda buffer: pack(buffer, 0, *values)


def make_touch(size: int) -> Touch:
    """A function that reads all of a buffer of `size` bytes and returns something that depends on each."""
    if size > _SMALL:
        return lambda buffer: int(np.frombuffer(buffer, np.uint64).sum())
    return struct.Struct(f"{size // 8}Q").unpack_from


def touch_run(buffer: Buffer) -> int:
    """Reads a run of messages that lie side by side."""
    return int(np.frombuffer(buffer, np.uint64).sum())


def fill_run(buffer: Buffer) -> None:
    """Writes a run of messages that lie side by side."""
    np.frombuffer(buffer, np.uint64).fill(WORD)


def make_payload(size: int) -> bytearray:
    payload = bytearray(size)
    make_fill(size)(payload)
    return payload
