"""Huge pages for what is loaded: code that has slept finds its objects with fewer walks through page tables."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

_MADV_COLLAPSE = 25  # Linux 6.1; Python's mmap knows it for its own mappings only
_HUGE = 2 << 20


def collapse_heap() -> int:
    """Call it when everything is loaded, and what was freed is given back: gaps are filled. How many there are now; 0
    where the kernel can't."""
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return sum(advise(at, _HUGE, _MADV_COLLAPSE) == 0 for at in _anonymous())


def _anonymous() -> Iterator[int]:
    """Whole huge pages of private memory that is no file's."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, access, _, _, inode, *name = line.split(maxsplit=5)
        if access == "rw-p" and inode == "0" and name in ([], ["[heap]"]):
            begin, end = (int(place, 16) for place in span.split("-"))
            yield from range(-(-begin // _HUGE) * _HUGE, end - _HUGE + 1, _HUGE)
