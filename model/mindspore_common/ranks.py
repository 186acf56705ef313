"""Ranks: processes that compute one step together, each a part of the model. On one machine they meet in a segment of
shared memory (csrc/ranks.h)."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from mmap import mmap
from typing import Any, Literal

from numpy.typing import NDArray

from model.errors import ConfigurationError, PartedError, StepError
from model.mindspore_common.native import last_error, load_library

ALL_REDUCE = "ringserve_all_reduce"
_OVER = 2  # what a gather returns
PATIENCE_S = 600.0
"""For a rank that lives and does not come: one loads from a slow disk, another waits. Supervision is faster."""


Collectives = Literal["shared memory", "mindspore"]


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which rank this process is, and how the ranks meet."""

    rank: int = 0
    count: int = 1
    segment_fd: int | None = None
    """Of `segment_bytes` zeroed bytes, which all ranks map and nobody else; None: known only to be one of so many."""
    reduce: Collectives = "shared memory"
    """What adds up in the graph on CPU: our operator, or `ops.AllReduce` through MindSpore's own backend, as on
    Ascend."""
    patience_s: float = PATIENCE_S


ALONE = Ranks()


def segment_bytes(count: int) -> int:
    """Size of the segment that so many ranks share."""
    return int(_library().ringserve_ranks_bytes(count))


def join(ranks: Ranks) -> None:
    """Become this rank, until `leave`. Raises ConfigurationError."""
    if ranks.segment_fd is None:
        raise ConfigurationError(f"rank {ranks.rank} of {ranks.count} has no segment to meet the others in")
    if _library().ringserve_ranks_join(ranks.segment_fd, ranks.rank, ranks.count, ranks.patience_s):
        raise ConfigurationError(f"rank {ranks.rank} of {ranks.count}: {last_error()}")


def leave() -> None:
    """Twice is harmless."""
    _library().ringserve_ranks_leave()


def begin(generation: int) -> None:
    """For this rank, when all have left the one before; generations count from 1."""
    _library().ringserve_ranks_begin(generation)


def end(segment: mmap, ranks: int, generation: int) -> None:
    """By whoever ends it: no rank waits for another in it any more."""
    _library().ringserve_ranks_end(_bytes(segment), ranks, generation)


def behind(segment: mmap, ranks: int) -> frozenset[int]:
    """The ranks that others wait for."""
    bits = _library().ringserve_ranks_behind(_bytes(segment), ranks)
    return frozenset(rank for rank in range(ranks) if bits >> rank & 1)


class Gather:
    """Brings together what every rank has of the same shape."""

    def __init__(self, count: int) -> None:
        self.count, self._call = count, _library().ringserve_all_gather

    def __call__(self, own: NDArray[Any], every: NDArray[Any]) -> None:
        """``[...]`` of each to ``[ranks, ...]``, C-contiguous. Raises PartedError when the generation has ended or a
        rank is dead, StepError when one is at another step."""
        outcome = self._call(own.ctypes.data, own.nbytes, every.ctypes.data)
        if outcome:
            kind = PartedError if outcome == _OVER else StepError
            raise kind(f"the ranks are apart: {last_error()}")


def _bytes(segment: mmap) -> ctypes.Array[ctypes.c_char]:
    return (ctypes.c_char * len(segment)).from_buffer(segment)


def _library() -> ctypes.CDLL:
    library = load_library()
    library.ringserve_ranks_bytes.restype = ctypes.c_int64
    library.ringserve_ranks_join.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_double]
    library.ringserve_ranks_begin.argtypes = [ctypes.c_uint32]
    library.ringserve_ranks_end.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.ringserve_ranks_behind.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.ringserve_ranks_behind.restype = ctypes.c_uint32
    library.ringserve_all_gather.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]
    return library
