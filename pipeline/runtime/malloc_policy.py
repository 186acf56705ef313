"""Settings of the C library's allocator, for the front."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8  # malloc.h


def share_one_heap() -> None:
    """Call it before any thread starts. Large bodies are parsed in threads, one at a time each; with an arena of its
    own, every thread would keep a heap as large as the largest body it ever parsed. No effect where the C library has
    no arenas (musl)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
