"""What the stages write with: a few stores each, and no memory kept."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from pipeline.descriptors import STAMP_WORDS, Head, Stamp
from pipeline.stats.counters import RequestTime, StepTime, edges_s
from pipeline.stats.page import HISTOGRAM_WORDS, STEP_RECORDS, SUM_WORD, StatsPage, StepColumn

Int64 = NDArray[np.int64]


class Counters:
    """One stage's counters. An addition is one load and one store of 8 bytes."""

    __slots__ = ("_words",)

    def __init__(self, page: StatsPage, stage: str) -> None:
        self._words = memoryview(getattr(page.views, stage))

    def add(self, counter: int, count: int = 1) -> None:
        self._words[counter] += count

    def set(self, counter: int, value: int) -> None:
        self._words[counter] = value

    def get(self, counter: int) -> int:
        return self._words[counter]


class Histograms:
    """Buckets and sum of each histogram in `kind`."""

    __slots__ = ("_edges", "_words")

    def __init__(self, page: StatsPage, kind: type[StepTime] | type[RequestTime]) -> None:
        table = page.views.step_times if kind is StepTime else page.views.request_times
        self._words = memoryview(table.reshape(-1))
        self._edges = [tuple(round(edge * 1e9) for edge in edges_s(histogram)) for histogram in kind]

    def observe(self, histogram: int, ns: int, count: int = 1) -> None:
        """`count` observations of `ns` each."""
        words, base = self._words, histogram * HISTOGRAM_WORDS
        words[base + bisect_left(self._edges[histogram], ns)] += count
        words[base + SUM_WORD] += ns * count


class StepLog:
    """What sampling writes at the end of each step: a record of it, and the parts of its time."""

    def __init__(self, page: StatsPage) -> None:
        self._steps: Int64 = page.views.steps
        self._times = Histograms(page, StepTime)
        self._last = (0, 0, 0)  # of the step before: its number, COMPUTED, SAMPLED

    def record(self, head: Int64, stamps: Int64) -> None:
        """`head` and `stamps` as in the slot, all stamps set. A handful of stores; about 5 µs."""
        number = int(head[Head.STEP])
        record = self._steps[number % STEP_RECORDS]
        record[StepColumn.STEP] = 0
        record[StepColumn.TOKENS] = head[Head.LIVE_TOKENS]
        record[StepColumn.ROWS] = head[Head.LIVE_ROWS]
        record[StepColumn.DECODE_ROWS] = head[Head.DECODE_ROWS]
        record[StepColumn.STAMPS : StepColumn.STAMPS + STAMP_WORDS] = stamps
        record[StepColumn.STEP] = number
        self._split(number, int(head[Head.NEEDS]), stamps.tolist())

    def _split(self, number: int, needs: int, stamps: list[int]) -> None:
        observe = self._times.observe
        taken, launched, computed = stamps[Stamp.TAKEN], stamps[Stamp.LAUNCHED], stamps[Stamp.COMPUTED]
        received, sampled = stamps[Stamp.RECEIVED], stamps[Stamp.SAMPLED]
        if stamps[Stamp.BEGUN]:
            observe(StepTime.SCHEDULE, stamps[Stamp.SCHEDULED] - stamps[Stamp.BEGUN])
        observe(StepTime.LAUNCH, launched - taken)
        observe(StepTime.DEVICE, computed - launched)
        observe(StepTime.PUBLISH, received - computed)
        observe(StepTime.SAMPLE, sampled - received)
        last, last_computed, last_sampled = self._last
        if needs and last == number - 1:
            observe(StepTime.WAIT_FOR_DESCRIPTOR, max(0, taken - last_computed))
            observe(StepTime.FEEDBACK, max(0, launched - last_sampled))
        self._last = (number, computed, sampled)
