"""What the front's process may take of the system."""

from __future__ import annotations

import ctypes
import logging
import resource

from pipeline.front.settings import FrontSettings

log = logging.getLogger("ringserve.front")

_M_ARENA_MAX = -8  # malloc.h
_OWN_DESCRIPTORS = 512  # rings, listeners, logs; connections that are being refused or left


def prepare_process(settings: FrontSettings) -> None:
    """Before there is any thread."""
    _allow_descriptors(settings.max_connections + _OWN_DESCRIPTORS)
    _share_one_heap()


def _allow_descriptors(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < possible:
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    if possible < wanted:
        log.warning(
            "this process may have %d open files; for max_connections it needs %d: see ulimit -Hn", hard, wanted
        )


def _share_one_heap() -> None:
    """Large bodies are read in threads, one at a time each; every thread would keep a heap as large as the largest
    that it ever read. Where the C library has no such thing (musl), there is nothing to do."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
