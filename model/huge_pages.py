"""Huge pages on demand for memory of this process that is there already."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

_MADV_COLLAPSE = 25  # Linux 6.1; Python's mmap knows it for its own mappings only


def private_memory() -> Iterator[tuple[int, int, str]]:
    """First address, end and name ("" for most, "[heap]") of each mapping that has no file and may be written to.
    Raises OSError."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, access, _, _, inode, *name = line.split(maxsplit=5)
        if access == "rw-p" and inode == "0":
            begin, end = (int(place, 16) for place in span.split("-"))
            yield begin, end, "".join(name)


def whole_pages(begin: int, end: int, size: int) -> range:
    """Addresses of the huge pages of this size that lie in between."""
    return range(-(-begin // size) * size, end - size + 1, size)


def collapse(pages: Iterator[int], size: int) -> int:
    """How many of these are huge pages now; 0 where the kernel can't."""
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return sum(advise(page, size, _MADV_COLLAPSE) == 0 for page in pages)
