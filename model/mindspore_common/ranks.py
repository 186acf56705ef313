"""Ranks: processes that compute one step together, each a part of the model. On one machine they meet in a segment of
shared memory (csrc/ranks.h)."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from model.errors import ConfigurationError, StepError
from model.mindspore_common.native import last_error, load_library

ALL_REDUCE = "ringserve_all_reduce"
PATIENCE_S = 600.0
"""For a rank that lives and does not come: one loads from a slow disk, another waits. Supervision is faster."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which rank this process is, and how the ranks meet."""

    rank: int = 0
    count: int = 1
    segment_fd: int | None = None
    """Of `segment_bytes` zeroed bytes, which all ranks map and nobody else; None: known only to be one of so many."""
    reduce: Literal["shared memory", "mindspore"] = "shared memory"
    """What adds up in the graph: our operator, or `ops.AllReduce` through MindSpore's own backend."""
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


class Gather:
    """Brings together what every rank has of the same shape."""

    def __init__(self, count: int) -> None:
        self.count, self._call = count, _library().ringserve_all_gather

    def __call__(self, own: NDArray[Any], every: NDArray[Any]) -> None:
        """``[...]`` of each to ``[ranks, ...]``, C-contiguous. Raises StepError when a rank is dead, or at another
        step."""
        if self._call(own.ctypes.data, own.nbytes, every.ctypes.data):
            raise StepError(f"the ranks are apart: {last_error()}")


def _library() -> ctypes.CDLL:
    library = load_library()
    library.ringserve_ranks_bytes.restype = ctypes.c_int64
    library.ringserve_ranks_join.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_double]
    library.ringserve_all_gather.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]
    return library
