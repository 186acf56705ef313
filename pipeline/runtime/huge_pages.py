"""Huge pages for what is loaded: code that has slept finds its objects with fewer walks through page tables."""

from __future__ import annotations

from itertools import chain

from model.huge_pages import collapse, private_memory, whole_pages

_HUGE = 2 << 20


def collapse_heap() -> int:
    """Call it when everything is loaded, and what was freed is given back: gaps are filled. How many there are now; 0
    where the kernel can't."""
    found = (whole_pages(begin, end, _HUGE) for begin, end, name in private_memory() if name in ("", "[heap]"))
    return collapse(chain.from_iterable(found), _HUGE)
