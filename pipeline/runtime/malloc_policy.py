"""What the front's process takes of the system. How many descriptors it may have, the launcher has seen to."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8  # malloc.h


def share_one_heap() -> None:
    """Before there is any thread. Large bodies are read in threads, one at a time each; every thread would keep a
    heap as large as the largest that it ever read. Where the C library has no such thing (musl), nothing is to do."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
