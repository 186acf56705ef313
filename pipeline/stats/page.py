"""The page itself: its layout, and how processes map it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import IntEnum
from multiprocessing import reduction
from typing import Any, Self

import numpy as np

from ipc import CorruptRingError, Field, Layout, Segment
from pipeline.stats.counters import GAUGES, RequestHistogram, StepHistogram
from pipeline.wire.rings import ENDS

STEP_RECORDS = 4096
HISTOGRAM_WORDS = 32
SUM_WORD = HISTOGRAM_WORDS - 1
"""Words of a histogram: buckets, the last of them without an upper edge, and in the last word the sum."""

PID_WORD = 31
"""Of each stage's counters: its process, once it is ready."""

_COUNTER_WORDS = 32
_END_WORDS = 16
_RECORD_WORDS = 16

LAYOUT = Layout(
    "stats",
    [
        Field("identity", "uint8", (128,), "hash of this layout"),
        Field("preprocess", "int64", (_COUNTER_WORDS,), "see PreprocessCounter"),
        Field("inference", "int64", (_COUNTER_WORDS,), "see InferenceCounter"),
        Field("sampling", "int64", (_COUNTER_WORDS,), "see SamplingCounter"),
        Field("front", "int64", (_COUNTER_WORDS,), "see FrontCounter"),
        Field("launcher", "int64", (_COUNTER_WORDS,), "see LauncherCounter"),
        *(
            Field(f"{stage}_ends", "int64", (len(rings), _END_WORDS), "ends of its rings; see EndWord")
            for stage, rings in ENDS.items()
        ),
        Field("step", "int64", (len(StepHistogram), HISTOGRAM_WORDS), "histograms; sampling writes them"),
        Field("request", "int64", (len(RequestHistogram), HISTOGRAM_WORDS), "histograms; the front writes them"),
        Field(
            "steps", "int64", (STEP_RECORDS, _RECORD_WORDS), "the last steps; sampling writes them; see StepColumn"
        ),
    ],
)


class StepColumn(IntEnum):
    """Words of a record in the log of steps; the stamps follow from `STAMPS` on."""

    STEP = 0  # 0 while the record is being written
    TOKENS = 1
    ROWS = 2
    DECODE_ROWS = 3
    STAMPS = 4


class EndWord(IntEnum):
    """Words of one end of a ring: a copy of the end's counters (ipc.SIDE_COUNTERS), and its capacity."""

    HEARTBEAT = 0
    DONE = 1  # slots or bytes that were published, or given back
    WAKES = 2
    WAITS = 3
    PARKS = 4
    SPIN_NS = 5
    LOST_WAKES = 6
    CAPACITY = 7  # slots or bytes


@dataclass(frozen=True, slots=True)
class StatsHandle:
    """The descriptor of the page, for a child that multiprocessing *spawns*."""

    fd: int

    def __reduce__(self) -> Any:
        return _rebuild_handle, (reduction.DupFd(self.fd),)


def _rebuild_handle(fd: Any) -> StatsHandle:
    return StatsHandle(fd.detach())


class StatsPage:
    """The mapped page. `views` are its arrays; write through a `Counters`, `Histograms` or `StepLog`."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.views: Any = LAYOUT.views(segment.map)

    @classmethod
    def create(cls) -> Self:
        """Raises NoSpaceError."""
        page = cls(Segment.create("stats", LAYOUT.size))
        page.views.identity[:16] = np.frombuffer(LAYOUT.hash, np.uint8)
        return page

    @classmethod
    def from_handle(cls, handle: StatsHandle) -> Self:
        """Raises SegmentError, CorruptRingError."""
        segment = Segment.from_fd(handle.fd)
        if segment.size != LAYOUT.size or segment.map[:16] != LAYOUT.hash:
            segment.close()
            raise CorruptRingError("the statistics page has another layout: all stages must run the same version")
        return cls(segment)

    @property
    def handle(self) -> StatsHandle:
        return StatsHandle(self.segment.fd)

    def close(self) -> None:
        """Drop the arrays and unmap; writers that are alive keep the mapping. The name exists until `unlink`."""
        self.views = None
        self.segment.close()

    def unlink(self) -> None:
        self.segment.unlink()

    def reset(self, stage: str) -> None:
        """For a stage that died: it is not ready, and has nothing waiting or running, and no rings. Its counters
        stay, so that none in `/metrics` ever decreases; the restarted stage counts on."""
        getattr(self.views, stage)[[*GAUGES[stage], PID_WORD]] = 0
        getattr(self.views, f"{stage}_ends")[:] = 0


def open_stats(handle: StatsHandle) -> StatsPage:
    """The page behind a handle that this process inherited; the handle's descriptor is duplicated."""
    return StatsPage.from_handle(StatsHandle(os.dup(handle.fd)))
