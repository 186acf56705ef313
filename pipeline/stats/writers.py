"""What the stages write to the page with: a few stores per update, no allocation that lasts."""

from __future__ import annotations

import gc
import os
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence

import ipc
from pipeline.stats.buckets import edges, scale
from pipeline.stats.counters import (
    GC_PAUSE_NS,
    KEY_ROWS,
    READY,
    KeyCounter,
    ReplicaCounter,
    RequestHistogram,
    SamplingCounter,
    StageState,
    StepHistogram,
    SupervisionCounter,
)
from pipeline.stats.page import HISTOGRAM_WORDS, PID_WORD, STEP_RECORDS, SUM_WORD, EndWord, StatsPage, StepColumn
from pipeline.wire.rings import Ring
from pipeline.wire.step import STAMP_WORDS, Head, Int64, Stamp
from pipeline.wire.topology import SAMPLING

KEY_NAME = 16
"""Characters of a key's digest by which it is named: nobody can find the key from them."""


class Counters:
    """Those of the stage with this key. An addition is one load and one store of 8 bytes."""

    __slots__ = ("_words",)

    def __init__(self, page: StatsPage, stage: str) -> None:
        self._words = memoryview(page.counters(stage))

    def add(self, counter: int, count: int = 1) -> None:
        self._words[counter] += count

    def set(self, counter: int, value: int) -> None:
        self._words[counter] = value

    def get(self, counter: int) -> int:
        return self._words[counter]

    def set_ready(self) -> None:
        """This process accepts work."""
        self._words[PID_WORD] = os.getpid()
        self._words[READY] = 1


class AdapterCounters:
    """Requests of each adapter, of the front with this number. `names`: in the order of the configuration."""

    def __init__(self, page: StatsPage, front: int, names: Sequence[str]) -> None:
        self._words, self._places = memoryview(page.adapters(front)), {name: at for at, name in enumerate(names)}

    def add(self, name: str, count: int) -> None:
        """Nothing for the base model's own weights, whose name is empty."""
        if name:
            self._words[self._places[name]] += count


class KeyCounters:
    """What each API key has used, of the front with this number. A front that is started again goes on counting."""

    def __init__(self, page: StatsPage, front: int) -> None:
        table = page.keys(front)
        self._words, self._width = memoryview(table.reshape(-1)), table.shape[1]
        found = enumerate(table[:, KeyCounter.IDENTITY].tolist())
        self._rows = {identity: row for row, identity in found if identity}

    def add(self, key: str, counts: Mapping[KeyCounter, int]) -> None:
        """`key`: the digest of which the table has the beginning; "": there is none."""
        first = self._row(key) * self._width
        for counter, count in counts.items():
            self._words[first + counter] += count

    def _row(self, key: str) -> int:
        if not key:
            return 0
        identity = int.from_bytes(bytes.fromhex(key[:KEY_NAME]), "little", signed=True)
        row = self._rows.get(identity)
        if row is None:
            row = len(self._rows) + 1
            if row == KEY_ROWS:
                return 0
            self._rows[identity] = row
            self._words[row * self._width + KeyCounter.IDENTITY] = identity
        return row


class PauseMeter:
    """Records the longest garbage collection on the statistics page. It runs inside the collector: no allocation."""

    def __init__(self, page: StatsPage, stage: str) -> None:
        self._words = memoryview(page.counters(stage))
        self._began = 0

    def start(self) -> None:
        """From here on a collection delays requests. Twice is harmless."""
        self.stop()
        gc.callbacks.append(self._on_collection)

    def stop(self) -> None:
        """Before collections that delay no request. Twice is harmless."""
        if self._on_collection in gc.callbacks:
            gc.callbacks.remove(self._on_collection)

    def _on_collection(self, phase: str, _: dict[str, int]) -> None:
        now = time.monotonic_ns()
        if phase == "start":
            self._began = now
        elif now - self._began > self._words[GC_PAUSE_NS]:
            self._words[GC_PAUSE_NS] = now - self._began


class Supervision:
    """What the launcher writes: of stages, by their keys, and of replicas."""

    def __init__(self, page: StatsPage) -> None:
        self._page = page

    def set_state(self, stage: str, state: StageState) -> None:
        self._page.supervision(stage)[SupervisionCounter.STATE] = state

    def add_restart(self, stage: str) -> None:
        self._page.supervision(stage)[SupervisionCounter.RESTARTS] += 1

    def set_generation(self, replica: int, number: int) -> None:
        self._page.views.replicas[replica, ReplicaCounter.GENERATION] = number


class RingEnds:
    """The counters of a stage's ring ends, copied into the page where the front can read them.

    A copy is one move of 56 bytes per end, about 0.1 µs. Made once per step, it shows how full each ring is between
    two steps, without another process having to map the ring.
    """

    __slots__ = ("_copies", "_stage", "_table", "_topology")

    def __init__(self, page: StatsPage, stage: str, rings: Mapping[str, Ring] | None = None) -> None:
        """`rings` by their keys."""
        self._topology, self._table = page.topology, page.ends(stage)
        self._stage = page.topology.stage(stage)
        self.follow(rings or {})

    def follow(self, rings: Mapping[str, Ring]) -> None:
        """Copy the counters of these rings from now on, or of none: a ring that is followed can't be unmapped."""
        counted, self._copies = len(ipc.SIDE_COUNTERS), []
        for row, spec in enumerate(self._stage.rings):
            if (ring := rings.get(spec.key)) is None:
                continue
            self._table[row, EndWord.CAPACITY] = ring.capacity
            reads = spec in self._stage.reads
            cursor = self._topology.cursor(spec, self._stage) if reads else 0
            source = ring.counters("consumer" if reads else "producer", cursor)
            target = memoryview(self._table[row, :counted]).cast("B").cast("q")
            self._copies.append((target, source))

    def copy(self) -> None:
        for target, source in self._copies:
            target[:] = source


class Histograms:
    """Buckets and sum of each histogram in `kind`, of a replica's steps or a front's requests: `number`."""

    __slots__ = ("_edges", "_words")

    def __init__(self, page: StatsPage, kind: type[StepHistogram] | type[RequestHistogram], number: int = 0) -> None:
        table = page.views.step if kind is StepHistogram else page.views.request
        self._words = memoryview(table[number].reshape(-1))
        self._edges = [tuple(round(edge * scale(each)) for edge in edges(each)) for each in kind]

    def observe(self, histogram: int, value: int, count: int = 1) -> None:
        """`count` observations of `value` each, which is in ns or tokens."""
        words, base = self._words, histogram * HISTOGRAM_WORDS
        words[base + bisect_left(self._edges[histogram], value)] += count
        words[base + SUM_WORD] += value * count


class StepLog:
    """Sampling's record of each step of a replica, written at its end, and histograms of the parts of its time."""

    def __init__(self, page: StatsPage, replica: int = 0) -> None:
        self._steps: Int64 = page.views.steps[replica]
        self._times = Histograms(page, StepHistogram, replica)
        self._counters = Counters(page, page.topology.find(SAMPLING, replica).key)
        self._last = (0, 0, 0, False)  # of the step before: its number, COMPUTED, SAMPLED, whether it was all argmax

    def record(self, head: Sequence[int], stamps: Int64) -> None:
        """`head` as in the slot; all stamps are set. Takes about 7 µs."""
        number = head[Head.STEP]
        record = self._steps[number % STEP_RECORDS]
        record[StepColumn.STEP] = 0
        record[StepColumn.TOKENS] = head[Head.TOKENS]
        record[StepColumn.ROWS] = head[Head.ROWS]
        record[StepColumn.DECODE_ROWS] = head[Head.DECODE_ROWS]
        record[StepColumn.STAMPS : StepColumn.STAMPS + STAMP_WORDS] = stamps
        record[StepColumn.STEP] = number
        self._times.observe(StepHistogram.TOKENS, head[Head.TOKENS])
        times = stamps.tolist()
        self._split(times)
        if head[Head.DEPENDS_ON_STEP] and self._last[0] == number - 1:
            self._split_gap(times)
        self._last = (number, times[Stamp.COMPUTED], times[Stamp.SAMPLED], not head[Head.CHOSEN_BY_SAMPLING])

    def _split(self, stamps: list[int]) -> None:
        """The parts that every step has."""
        observe = self._times.observe
        computed, received = stamps[Stamp.COMPUTED], stamps[Stamp.RECEIVED]
        if stamps[Stamp.BEGUN]:
            observe(StepHistogram.SCHEDULE, stamps[Stamp.SCHEDULED] - stamps[Stamp.BEGUN])
        observe(StepHistogram.LAUNCH, stamps[Stamp.LAUNCHED] - stamps[Stamp.TAKEN])
        observe(StepHistogram.DEVICE, computed - stamps[Stamp.LAUNCHED])
        observe(StepHistogram.PUBLISH, received - computed)
        observe(StepHistogram.SAMPLE, stamps[Stamp.SAMPLED] - received)

    def _split_gap(self, stamps: list[int]) -> None:
        """The time between two consecutive steps, in which the device was idle, by the stage that caused it.

        Sampling delays the next step unless inference knew the tokens itself (all argmax); without overlap always,
        which shows in that preprocess began to plan when they were known. Preprocess delays it where its descriptor
        came later than that, and the rest is inference's."""
        _, computed, sampled, all_argmax = self._last
        observe, launched = self._times.observe, stamps[Stamp.LAUNCHED]
        observe(StepHistogram.WAIT_FOR_DESCRIPTOR, max(0, stamps[Stamp.TAKEN] - computed))
        observe(StepHistogram.FEEDBACK, max(0, launched - sampled))
        gap = max(0, launched - computed)
        observe(StepHistogram.OVERHEAD, gap)
        awaited = not all_argmax or stamps[Stamp.BEGUN] >= sampled
        sampling = min(max(0, sampled - computed), gap) if awaited else 0
        preprocess = max(0, min(stamps[Stamp.SCHEDULED], launched) - computed - sampling)
        self._counters.add(SamplingCounter.OVERHEAD_SAMPLING_NS, sampling)
        self._counters.add(SamplingCounter.OVERHEAD_PREPROCESS_NS, preprocess)
        self._counters.add(SamplingCounter.OVERHEAD_INFERENCE_NS, gap - sampling - preprocess)
