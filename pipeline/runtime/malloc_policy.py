"""What the C library's allocator keeps."""

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


def give_back_freed() -> None:
    """Call it when everything is loaded. A large vocabulary's file is parsed into several times the memory that the
    vocabulary takes, and most of it would stay with the process. No effect where the C library can't (musl)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
