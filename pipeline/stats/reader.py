"""Reads the statistics page, for `/metrics`, the live page, the trace, the timing headers and the launcher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from pipeline.stats.buckets import Histogram, edges, scale
from pipeline.stats.counters import (
    GC_PAUSE_NS,
    READY,
    STAGE_COUNTERS,
    ExporterCounter,
    FrontCounter,
    InferenceCounter,
    KeyCounter,
    ReplicaCounter,
    StageState,
    StepHistogram,
    SupervisionCounter,
)
from pipeline.stats.page import HISTOGRAM_WORDS, PID_WORD, SUM_WORD, EndWord, StatsPage, StepColumn
from pipeline.wire.step import Float64, Int64, Stamp
from pipeline.wire.topology import INFERENCE, RingSpec, StageSpec

_WORST = (StageState.OK, StageState.STARTING, StageState.HUNG, StageState.RESTARTING)


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

    stage: StageSpec
    done: int  # slots or bytes that were published, or given back
    capacity: int
    wakes: int
    waits: int
    parks: int
    spin_ns: int
    lost_wakes: int


@dataclass(frozen=True, slots=True)
class RingReading:
    """A ring, and its ends; the consumers in the order of their cursors."""

    spec: RingSpec
    producer: EndReading
    consumers: tuple[EndReading, ...]

    @property
    def name(self) -> str:
        return self.spec.key

    @property
    def consumer(self) -> EndReading:
        """The one that is furthest behind."""
        return min(self.consumers, key=lambda end: end.done)

    @property
    def capacity(self) -> int:
        return max(end.capacity for end in (self.producer, *self.consumers))

    @property
    def used(self) -> int:
        """Published and not yet given back."""
        return min(max(self.producer.done - self.consumer.done, 0), self.capacity)


class StepLimits(NamedTuple):
    """Of a step; 0: not known."""

    tokens: int  # at most
    samples: int  # sampled positions at most
    drafted: int  # tokens at most where all are sampled
    final: bool  # all buckets are compiled


_DEVICE, _TOKENS = (at * HISTOGRAM_WORDS + SUM_WORD for at in (StepHistogram.DEVICE, StepHistogram.TOKENS))
_OF_KEYS = tuple(counter for counter in KeyCounter if counter is not KeyCounter.IDENTITY)
NO_USE: Mapping[str, int] = MappingProxyType({counter.name.lower(): 0 for counter in _OF_KEYS})
"""What an API key has used that has not been used."""


class Work(NamedTuple):
    """What the devices have done since the start."""

    device_ns: int
    tokens: int

    def share(self, later: Work, tokens: int) -> int:
        """Of the devices' time until then, in ns, that of so many of the tokens that were computed meanwhile."""
        computed = later.tokens - self.tokens
        return (later.device_ns - self.device_ns) * min(tokens, computed) // computed if computed > 0 else 0


class StatsReader:
    """Copies and conversions; nothing here is synchronised with the writers."""

    def __init__(self, page: StatsPage) -> None:
        self._page, self._views = page, page.views
        self.topology = topology = page.topology
        self._steps = [memoryview(table.reshape(-1)) for table in self._views.step]
        self._rings = [
            (
                spec,
                self._end_of(spec, topology.producer(spec)),
                [self._end_of(spec, stage) for stage in topology.consumers(spec)],
            )
            for spec in topology.rings
        ]

    def _end_of(self, spec: RingSpec, stage: StageSpec) -> tuple[StageSpec, Int64]:
        """A stage, and the words that it writes of its end of this ring."""
        return stage, self._page.ends(stage.key)[stage.rings.index(spec)]

    def counters(self, kind: type[IntEnum], stage: str | None = None) -> dict[str, int]:
        """Values by name in lower case: of the stage with this key, else the sums over all stages that have them, of
        ranks the first one's, since all count the same."""
        stages = [
            each.key
            for each in self.topology.stages
            if STAGE_COUNTERS[each.name] is kind and (each.is_front or each.rank == 0)
        ]
        words = [self._page.counters(key).tolist() for key in ([stage] if stage else stages)]
        return {counter.name.lower(): sum(of[counter] for of in words) for counter in kind}

    def histogram(self, histogram: Histogram, number: int | None = None) -> HistogramSnapshot:
        """Of a replica's steps or a front's requests, else of all together."""
        table = self._views.step if isinstance(histogram, StepHistogram) else self._views.request
        words = (table[:, histogram].sum(axis=0) if number is None else table[number, histogram]).tolist()
        upper = edges(histogram)
        return HistogramSnapshot(upper, tuple(words[: len(upper) + 1]), words[SUM_WORD] / scale(histogram))

    def work(self) -> Work:
        """Of all replicas; two loads for each."""
        return Work(sum([words[_DEVICE] for words in self._steps]), sum([words[_TOKENS] for words in self._steps]))

    def keys(self) -> dict[str, dict[str, int]]:
        """What each API key has used, of all fronts together: counters by name in lower case, by the key's name. "":
        requests without a key."""
        found: dict[str, dict[str, int]] = {}
        table = self._views.keys.reshape(-1, self._views.keys.shape[-1])
        for row in table[table[:, KeyCounter.REQUESTS] > 0].tolist():
            identity = row[KeyCounter.IDENTITY]
            name = identity.to_bytes(8, "little", signed=True).hex() if identity else ""
            counts = found.setdefault(name, {**NO_USE})
            for counter in _OF_KEYS:
                counts[counter.name.lower()] += row[counter]
        return found

    def exporter(self) -> dict[str, int]:
        """Counters of the exporter by name in lower case."""
        return {counter.name.lower(): int(self._views.exporter[counter]) for counter in ExporterCounter}

    def adapter_requests(self) -> list[int]:
        """Requests of each adapter, in the order of the configuration; of all fronts together."""
        counted: list[int] = self._views.adapters.sum(axis=0).tolist()
        return counted

    def rings(self) -> list[RingReading]:
        return [
            RingReading(spec, _end(*producer), tuple(_end(*consumer) for consumer in consumers))
            for spec, producer, consumers in self._rings
        ]

    def pids(self) -> dict[str, int]:
        """Process ids by the keys of stages that have been ready."""
        pids = {stage.key: int(self._page.counters(stage.key)[PID_WORD]) for stage in self.topology.stages}
        return {stage: pid for stage, pid in pids.items() if pid}

    def steps(self, since_ns: int = 0, until_ns: int = 2**63 - 1, replica: int = 0) -> Int64:
        """Records of steps that were sent within this time, in that order, `[n, 16]`; see StepColumn. Step numbers
        restart with each generation.

        A record that changes while it is copied is left out: its number is compared before and after.
        """
        log = self._views.steps[replica]
        before = log[:, StepColumn.STEP].copy()
        records = log.copy()
        after = log[:, StepColumn.STEP]
        sent = records[:, StepColumn.STAMPS + Stamp.SENT]
        whole = (before != 0) & (before == after) & (before == records[:, StepColumn.STEP])
        chosen: Int64 = records[whole & (sent >= since_ns) & (sent <= until_ns)]
        return chosen[np.argsort(chosen[:, StepColumn.STAMPS + Stamp.SENT])]

    def idle_shares(self, since_ns: int, replica: int = 0) -> Float64:
        """Of each step since then that followed another one and continued its rows: the part of the time from token
        to token in which the device stood still, 0 to 1."""
        steps = self.steps(since_ns, replica=replica)
        stamps = steps[:, StepColumn.STAMPS :]
        follows = steps[1:, StepColumn.STEP] == steps[:-1, StepColumn.STEP] + 1
        follows &= steps[1:, StepColumn.DECODE_ROWS] > 0
        began, done = stamps[1:, Stamp.LAUNCHED][follows], stamps[1:, Stamp.COMPUTED][follows]
        before = stamps[:-1, Stamp.COMPUTED][follows]
        share: Float64 = (began - before).clip(min=0) / np.maximum(done - before, 1)
        return share

    def generation(self, replica: int) -> int:
        """Sets of rings that the launcher has handed out to this replica; 0: it has never served."""
        return int(self._views.replicas[replica, ReplicaCounter.GENERATION])

    @property
    def has_served(self) -> bool:
        """Any replica."""
        return any(map(self.generation, range(self.topology.replicas)))

    def state(self, stage: str) -> StageState:
        """This stage's state, as the launcher sees it."""
        return StageState(int(self._page.supervision(stage)[SupervisionCounter.STATE]))

    def replica_state(self, replica: int) -> StageState:
        """The worst of its stages'."""
        return max((self.state(stage.key) for stage in self.topology.replica(replica)), key=_WORST.index)

    def restarts(self, stage: str) -> int:
        return int(self._page.supervision(stage)[SupervisionCounter.RESTARTS])

    def gc_pause_s(self, stage: str) -> float:
        """This stage's longest garbage collection, in seconds."""
        return int(self._page.counters(stage)[GC_PAUSE_NS]) / 1e9

    def slowest_step_s(self) -> float:
        """Device time of the slowest step on record, or of the one that was run before the first request, if that
        took longer. The slowest hundredth is left out: the machine may have paused."""
        records = self._views.steps.reshape(-1, self._views.steps.shape[-1])
        stamps = records[:, StepColumn.STAMPS :]
        taken = stamps[:, Stamp.COMPUTED] - stamps[:, Stamp.LAUNCHED]
        taken = np.sort(taken[records[:, StepColumn.STEP] != 0])
        seen = int(taken[-1 - taken.size // 100]) if taken.size else 0
        inference = self.topology.every(INFERENCE)
        rehearsed = (int(self._page.counters(each.key)[InferenceCounter.REHEARSAL_NS]) for each in inference)
        return max([seen, *rehearsed]) / 1e9

    def compiled(self) -> tuple[int, int]:
        """Buckets that are compiled, and buckets in total, of all replicas."""
        numbers = self.counters(InferenceCounter)
        return numbers["compiled"], numbers["buckets"]

    def step_limits(self, replica: int) -> StepLimits:
        """What every rank has compiled buckets for."""
        ranks = [stage for stage in self.topology.every(INFERENCE) if stage.replica == replica]
        words = [self._page.counters(each.key) for each in ranks]
        tokens = min(int(one[InferenceCounter.STEP_TOKENS]) for one in words)  # read first: see Compilation
        samples = min(int(one[InferenceCounter.STEP_SAMPLES]) for one in words)
        drafted = min(int(one[InferenceCounter.STEP_DRAFTED]) for one in words)
        final = all(one[InferenceCounter.COMPILED] == one[InferenceCounter.BUCKETS] > 0 for one in words)
        return StepLimits(tokens, samples, drafted, final)

    def is_deterministic(self, replica: int) -> bool:
        """No rank has found otherwise while it started: see `Runner.deterministic`."""
        ranks = [stage for stage in self.topology.every(INFERENCE) if stage.replica == replica]
        return not any(self._page.counters(each.key)[InferenceCounter.NOT_DETERMINISTIC] for each in ranks)

    def is_compiling(self, stage: str) -> bool:
        """This stage, which runs a model, compiles between two steps: it takes none meanwhile."""
        return bool(self._page.counters(stage)[InferenceCounter.COMPILING])

    def last_step(self, replica: int = 0) -> Int64:
        """The record of the step that sampling finished last; see StepColumn. Zeros before the first step."""
        log = self._views.steps[replica]
        sent = log[:, StepColumn.STAMPS + Stamp.SENT] * (log[:, StepColumn.STEP] != 0)
        record: Int64 = log[int(sent.argmax())].copy()
        return record

    @property
    def ready(self) -> bool:
        """All stages of some replica accept work; a router has none, and its front knows whether a node's do."""
        replicas = self.topology.replicas
        return any(map(self.is_ready, range(replicas))) if replicas else self.counters(FrontCounter)["ready"] > 0

    def is_ready(self, replica: int) -> bool:
        """All its stages accept work."""
        stages = self.topology.replica(replica)
        return all(int(self._page.counters(stage.key)[READY]) == 1 for stage in stages)


def _end(stage: StageSpec, row: Int64) -> EndReading:
    words = row.tolist()
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
