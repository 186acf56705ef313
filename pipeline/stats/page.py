"""The page itself: its layout, and how processes map it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from multiprocessing import reduction
from typing import Any, Self

import numpy as np

from ipc import CorruptRingError, Field, Layout, Segment
from pipeline.config import MOST_ADAPTERS
from pipeline.stats.counters import KEY_ROWS, STAGE_COUNTERS, RequestHistogram, StepHistogram, gauges_of
from pipeline.wire.topology import ONE_OF_EACH, StageSpec, Topology

STEP_RECORDS = 4096
HISTOGRAM_WORDS = 32
SUM_WORD = HISTOGRAM_WORDS - 1
"""Words of a histogram: buckets, the last of them without an upper edge, and in the last word the sum."""

PID_WORD = 31
"""Of each stage's counters: its process, once it is ready."""

_COUNTER_WORDS = 32
_END_WORDS = 16
_RECORD_WORDS = 16
_KEY_WORDS = 8


@cache
def stats_layout(topology: Topology) -> Layout:
    """Every region has one writer: a stage, or the launcher."""
    return Layout("stats", [Field("identity", "uint8", (128,), "hash of this layout"), *_fields(topology)])


def _fields(topology: Topology) -> Iterator[Field]:
    for stage in topology.stages:
        counters, name = STAGE_COUNTERS[stage.name].__name__, _field_name(stage)
        yield Field(name, "int64", (_COUNTER_WORDS,), f"see {counters}")
        yield Field(f"{name}_ends", "int64", (max(len(stage.rings), 1), _END_WORDS), "ends of its rings; see EndWord")
    yield Field("stages", "int64", (len(topology.stages), _END_WORDS), "the launcher's; see SupervisionCounter")
    replicas = max(topology.replicas, 1)  # a router has none: zeros
    yield Field("replicas", "int64", (replicas, _END_WORDS), "the launcher's; see ReplicaCounter")
    step, request = (len(StepHistogram), HISTOGRAM_WORDS), (len(RequestHistogram), HISTOGRAM_WORDS)
    records = (STEP_RECORDS, _RECORD_WORDS)
    yield Field("step", "int64", (replicas, *step), "histograms; sampling writes them")
    yield Field("request", "int64", (topology.fronts, *request), "histograms; the front writes them")
    yield Field("steps", "int64", (replicas, *records), "the last steps; see StepColumn")
    yield Field("keys", "int64", (topology.fronts, KEY_ROWS, _KEY_WORDS), "see KeyCounter; the front counts")
    yield Field("exporter", "int64", (_END_WORDS,), "the exporter's; see ExporterCounter")
    yield Field("adapters", "int64", (topology.fronts, MOST_ADAPTERS), "requests of each; the front counts them")


def _field_name(stage: StageSpec) -> str:
    return stage.key.replace(" ", "_").replace(".", "_")


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
    """The descriptor of the page, for a child that multiprocessing *spawns*, and whose page it is."""

    fd: int
    topology: Topology = ONE_OF_EACH

    def __reduce__(self) -> Any:
        return _rebuild_handle, (reduction.DupFd(self.fd), self.topology)


def _rebuild_handle(fd: Any, topology: Topology) -> StatsHandle:
    return StatsHandle(fd.detach(), topology)


class StatsPage:
    """The mapped page. `views` are its arrays; write through a `Counters`, `Histograms` or `StepLog`."""

    def __init__(self, segment: Segment, topology: Topology) -> None:
        self.segment, self.topology = segment, topology
        self.views: Any = stats_layout(topology).views(segment.map)

    @classmethod
    def create(cls, topology: Topology = ONE_OF_EACH) -> Self:
        """Raises NoSpaceError."""
        layout = stats_layout(topology)
        page = cls(Segment.create("stats", layout.size), topology)
        page.views.identity[:16] = np.frombuffer(layout.hash, np.uint8)
        return page

    @classmethod
    def from_handle(cls, handle: StatsHandle) -> Self:
        """Raises SegmentError, CorruptRingError."""
        segment, layout = Segment.from_fd(handle.fd), stats_layout(handle.topology)
        if segment.size != layout.size or segment.map[:16] != layout.hash:
            segment.close()
            raise CorruptRingError("the statistics page has another layout: all stages must run the same version")
        return cls(segment, handle.topology)

    @property
    def handle(self) -> StatsHandle:
        return StatsHandle(self.segment.fd, self.topology)

    def counters(self, stage: str) -> Any:
        """Of the stage with this key."""
        return getattr(self.views, _field_name(self.topology.stage(stage)))

    def adapters(self, front: int) -> Any:
        """Counters of the front with this number."""
        return self.views.adapters[front]

    def keys(self, front: int) -> Any:
        """Counters of API keys, of the front with this number."""
        return self.views.keys[front]

    def ends(self, stage: str) -> Any:
        """One row per ring, in the order of its specification."""
        return getattr(self.views, _field_name(self.topology.stage(stage)) + "_ends")

    def supervision(self, stage: str) -> Any:
        """What the launcher counts of the stage with this key."""
        return self.views.stages[[each.key for each in self.topology.stages].index(stage)]

    def close(self) -> None:
        """Drop the arrays and unmap; writers that are alive keep the mapping. The name exists until `unlink`."""
        self.views = None
        self.segment.close()

    def unlink(self) -> None:
        self.segment.unlink()

    def reset(self, stage: str) -> None:
        """For a stage that died: it is not ready, and has nothing waiting or running, and no rings. Its counters
        stay, so that none in `/metrics` ever decreases; the restarted stage counts on."""
        self.counters(stage)[[*gauges_of(self.topology.stage(stage).name), PID_WORD]] = 0
        self.ends(stage)[:] = 0


def open_stats(handle: StatsHandle) -> StatsPage:
    """The page behind a handle that this process inherited; the handle's descriptor is duplicated."""
    return StatsPage.from_handle(StatsHandle(os.dup(handle.fd), handle.topology))
