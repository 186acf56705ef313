"""Reads the statistics page, for `/metrics`, the live page, the trace, the timing headers and the launcher."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from pipeline.stats.buckets import Histogram, edges, scale
from pipeline.stats.counters import (
    GC_PAUSE_NS,
    FrontCounter,
    InferenceCounter,
    LauncherCounter,
    PreprocessCounter,
    SamplingCounter,
    StageState,
    StepHistogram,
)
from pipeline.stats.page import PID_WORD, SUM_WORD, EndWord, StatsPage, StepColumn
from pipeline.wire.rings import ENDS, PRODUCERS, SLOT_LAYOUTS
from pipeline.wire.step import Int64, Stamp


@dataclass(frozen=True, slots=True)
class HistogramSnapshot:
    """In seconds or tokens. `counts` has one entry more than `edges`, for values above all of them."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class EndReading:
    """Counters of one end of a ring, as its stage copied them last; see `ipc.SIDE_COUNTERS`."""

    stage: str
    done: int  # slots or bytes that were published, or given back
    capacity: int
    wakes: int
    waits: int
    parks: int
    spin_ns: int
    lost_wakes: int


@dataclass(frozen=True, slots=True)
class RingReading:
    """A ring; `unit` is what it is measured in: "slots" or "bytes"."""

    name: str
    unit: str
    producer: EndReading
    consumer: EndReading

    @property
    def capacity(self) -> int:
        return max(self.producer.capacity, self.consumer.capacity)

    @property
    def used(self) -> int:
        """Published and not yet given back."""
        return min(max(self.producer.done - self.consumer.done, 0), self.capacity)


class StatsReader:
    """Copies and conversions; nothing here is synchronised with the writers."""

    def __init__(self, page: StatsPage) -> None:
        self._views = page.views

    def counters(self, kind: type[IntEnum]) -> dict[str, int]:
        """Values by name in lower case."""
        stage = {
            PreprocessCounter: "preprocess",
            InferenceCounter: "inference",
            SamplingCounter: "sampling",
            FrontCounter: "front",
            LauncherCounter: "launcher",
        }[kind]
        words = getattr(self._views, stage).tolist()
        return {counter.name.lower(): words[counter] for counter in kind}

    def histogram(self, histogram: Histogram) -> HistogramSnapshot:
        table = self._views.step if isinstance(histogram, StepHistogram) else self._views.request
        words, upper = table[histogram].tolist(), edges(histogram)
        return HistogramSnapshot(upper, tuple(words[: len(upper) + 1]), words[SUM_WORD] / scale(histogram))

    def rings(self) -> list[RingReading]:
        ends = {name: {} for name in PRODUCERS}  # type: dict[str, dict[bool, EndReading]]
        for stage, rings in ENDS.items():
            for name, words in zip(rings, getattr(self._views, f"{stage}_ends").tolist(), strict=True):
                ends[name][PRODUCERS[name] == stage] = _end(stage, words)
        return [
            RingReading(name, "slots" if name in SLOT_LAYOUTS else "bytes", sides[True], sides[False])
            for name, sides in ends.items()
        ]

    def pids(self) -> dict[str, int]:
        """Process ids by stage, of stages that have been ready."""
        pids = {stage: int(getattr(self._views, stage)[PID_WORD]) for stage in ENDS}
        return {stage: pid for stage, pid in pids.items() if pid}

    def steps(self, since_ns: int = 0, until_ns: int = 2**63 - 1) -> Int64:
        """Records of steps that were sent within this time, in that order, `[n, 16]`; see StepColumn. Step numbers
        restart with each generation.

        A record that changes while it is copied is left out: its number is compared before and after.
        """
        before = self._views.steps[:, StepColumn.STEP].copy()
        records = self._views.steps.copy()
        after = self._views.steps[:, StepColumn.STEP]
        sent = records[:, StepColumn.STAMPS + Stamp.SENT]
        whole = (before != 0) & (before == after) & (before == records[:, StepColumn.STEP])
        chosen: Int64 = records[whole & (sent >= since_ns) & (sent <= until_ns)]
        return chosen[np.argsort(chosen[:, StepColumn.STAMPS + Stamp.SENT])]

    @property
    def generation(self) -> int:
        """Sets of rings that the launcher has handed out; 0: no stage has ever served."""
        return int(self._views.launcher[LauncherCounter.GENERATION])

    def state(self, stage: str) -> StageState:
        """This stage's state, as the launcher sees it."""
        return StageState(int(self._views.launcher[LauncherCounter[f"{stage.upper()}_STATE"]]))

    def gc_pause_s(self, stage: str) -> float:
        """This stage's longest garbage collection, in seconds."""
        return int(getattr(self._views, stage)[GC_PAUSE_NS]) / 1e9

    def slowest_step_s(self) -> float:
        """Device time of the slowest step on record, or of the one that was run before the first request, if that
        took longer. The slowest hundredth is left out: the machine may have paused."""
        stamps = self._views.steps[:, StepColumn.STAMPS :]
        taken = stamps[:, Stamp.COMPUTED] - stamps[:, Stamp.LAUNCHED]
        taken = np.sort(taken[self._views.steps[:, StepColumn.STEP] != 0])
        seen = int(taken[-1 - taken.size // 100]) if taken.size else 0
        return max(seen, int(self._views.inference[InferenceCounter.REHEARSAL_NS])) / 1e9

    def last_step(self) -> Int64:
        """The record of the step that sampling finished last; see StepColumn. Zeros before the first step."""
        sent = self._views.steps[:, StepColumn.STAMPS + Stamp.SENT] * (self._views.steps[:, StepColumn.STEP] != 0)
        record: Int64 = self._views.steps[int(sent.argmax())].copy()
        return record

    @property
    def ready(self) -> bool:
        """All stages behind the front accept work."""
        views = self._views
        return all(int(region[0]) == 1 for region in (views.preprocess, views.inference, views.sampling))


def _end(stage: str, words: list[int]) -> EndReading:
    return EndReading(
        stage=stage,
        done=words[EndWord.DONE],
        capacity=words[EndWord.CAPACITY],
        wakes=words[EndWord.WAKES],
        waits=words[EndWord.WAITS],
        parks=words[EndWord.PARKS],
        spin_ns=words[EndWord.SPIN_NS],
        lost_wakes=words[EndWord.LOST_WAKES],
    )
