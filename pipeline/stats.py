"""The statistics page: one shared segment in which every stage counts what it does, for `/metrics` and the trace.

Each stage has a region of its own, 128-byte aligned, that it alone writes: plain 8-byte stores, no lock. A reader may
see a number that is one event behind another; nothing here is used to synchronise anything. Beside the counters is
a log of the last steps with their time stamps, written by sampling, which sees every step last.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from dataclasses import dataclass
from enum import IntEnum
from multiprocessing import reduction
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ipc import CorruptRingError, Field, Layout, Segment
from pipeline.descriptors import STAMP_WORDS, Head, Stamp

Int64 = NDArray[np.int64]

STEP_RECORDS = 4096
HISTOGRAM_WORDS = 32  # buckets, the last of them without an upper edge, and in the last word the sum in ns
_SUM = HISTOGRAM_WORDS - 1
_COUNTER_WORDS = 32
_RECORD_WORDS = 16


class PreprocessCounter(IntEnum):
    """Gauges and counters of preprocess. `READY`: 1 as soon as requests are taken."""

    READY = 0
    STEPS = 1
    WAITING = 2
    RUNNING = 3
    KV_BLOCKS_USED = 4
    KV_BLOCKS_TOTAL = 5
    CACHED_BLOCKS = 6
    PREFIX_QUERIES = 7  # tokens looked up, as in vLLM
    PREFIX_HITS = 8  # tokens found
    PREEMPTIONS = 9
    ADMITTED = 10
    CANCELLED = 11


class InferenceCounter(IntEnum):
    READY = 0
    STEPS = 1
    GREEDY_STEPS = 2


class SamplingCounter(IntEnum):
    READY = 0
    STEPS = 1
    TOKENS = 2
    FAILED_ROWS = 3


class FrontCounter(IntEnum):
    """Requests by how they ended, and what they brought."""

    READY = 0
    REQUESTS = 1
    LENGTH = 2
    EOS = 3
    STOP = 4
    FAILED = 5  # by the server, 5xx
    CANCELLED = 6  # the client went away, or did not read
    REFUSED = 7  # 4xx
    REJECTED = 8  # 429: no room
    PROMPT_TOKENS = 9
    GENERATED_TOKENS = 10
    IN_FLIGHT = 11
    DROPPED_DELTAS = 12  # of requests that were cancelled already


class StepTime(IntEnum):
    """Parts of a step's time; sampling writes them, from the step's stamps.

    PUBLISH + SAMPLE + FEEDBACK + DEVICE of consecutive decode steps is the time from token to token; all but
    DEVICE is host overhead. SCHEDULE, WAIT_FOR_DESCRIPTOR and LAUNCH overlap with it.
    """

    SCHEDULE = 0  # preprocess: planning and writing the descriptor
    WAIT_FOR_DESCRIPTOR = 1  # device done with the step before → descriptor taken; only where rows go on
    LAUNCH = 2  # descriptor taken → device started: for decode rows this includes waiting for their tokens
    DEVICE = 3  # device started → done
    PUBLISH = 4  # device done → sampling has the logits
    SAMPLE = 5  # logits → tokens published
    FEEDBACK = 6  # tokens published → device started on the next step; only where rows go on


class RequestTime(IntEnum):
    """Histograms of the front."""

    FRONT = 0  # a write: delta read from the ring → handed to the socket
    TTFT = 1
    ITL = 2
    E2E = 3
    QUEUE = 4  # submitted → in a row


_SPLIT_US = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 1_000_000)
# The ladders of vLLM (vllm/v1/metrics/loggers.py), in seconds
_TTFT_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
)  # fmt: skip
_ITL_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
_E2E_S = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
)  # fmt: skip


def edges_s(histogram: StepTime | RequestTime) -> tuple[float, ...]:
    """Upper edges of the buckets, in seconds; one more bucket follows them."""
    ladders = {RequestTime.TTFT: _TTFT_S, RequestTime.ITL: _ITL_S, RequestTime.E2E: _E2E_S, RequestTime.QUEUE: _E2E_S}
    if isinstance(histogram, RequestTime) and histogram in ladders:
        return ladders[histogram]
    return tuple(edge / 1e6 for edge in _SPLIT_US)


LAYOUT = Layout(
    "stats",
    [
        Field("identity", "uint8", (128,), "hash of this layout"),
        Field("preprocess", "int64", (_COUNTER_WORDS,), "see PreprocessCounter"),
        Field("inference", "int64", (_COUNTER_WORDS,), "see InferenceCounter"),
        Field("sampling", "int64", (_COUNTER_WORDS,), "see SamplingCounter"),
        Field("front", "int64", (_COUNTER_WORDS,), "see FrontCounter"),
        Field("step_times", "int64", (len(StepTime), HISTOGRAM_WORDS), "histograms; sampling writes them"),
        Field("request_times", "int64", (len(RequestTime), HISTOGRAM_WORDS), "histograms; the front writes them"),
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
        """Drop the arrays and unmap; writers that are alive keep the mapping. The name stays until `unlink`."""
        self.views = None
        self.segment.close()

    def unlink(self) -> None:
        self.segment.unlink()

    def reset(self, stage: str) -> None:
        """A stage that starts anew is not ready, and has nothing waiting or running."""
        getattr(self.views, stage)[:] = 0


class Counters:
    """One stage's counters. An addition is one load and one store of 8 bytes."""

    __slots__ = ("_words",)

    def __init__(self, page: StatsPage, stage: str) -> None:
        self._words = memoryview(getattr(page.views, stage))

    def add(self, counter: int, count: int = 1) -> None:
        self._words[counter] += count

    def set(self, counter: int, value: int) -> None:
        self._words[counter] = value


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
        words[base + _SUM] += ns * count


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


@dataclass(frozen=True, slots=True)
class HistogramSnapshot:
    """`counts` has one entry more than `edges_s`: what lies above all edges."""

    edges_s: tuple[float, ...]
    counts: tuple[int, ...]
    sum_s: float


class StatsReader:
    """What `/metrics` and the trace read."""

    def __init__(self, page: StatsPage) -> None:
        self._views = page.views

    def counters(self, kind: type[IntEnum]) -> dict[str, int]:
        """Values by name in lower case."""
        stage = {
            PreprocessCounter: "preprocess",
            InferenceCounter: "inference",
            SamplingCounter: "sampling",
            FrontCounter: "front",
        }[kind]
        words = getattr(self._views, stage).tolist()
        return {counter.name.lower(): words[counter] for counter in kind}

    def histogram(self, histogram: StepTime | RequestTime) -> HistogramSnapshot:
        table = self._views.step_times if isinstance(histogram, StepTime) else self._views.request_times
        words, edges = table[histogram].tolist(), edges_s(histogram)
        return HistogramSnapshot(edges, tuple(words[: len(edges) + 1]), words[_SUM] / 1e9)

    def steps(self, since_ns: int = 0, until_ns: int = 2**63 - 1) -> Int64:
        """Records of steps that were sent within this time, in order, `[n, 16]`; see StepColumn.

        A record that changes while it is copied is left out: its number is compared before and after.
        """
        before = self._views.steps[:, StepColumn.STEP].copy()
        records = self._views.steps.copy()
        after = self._views.steps[:, StepColumn.STEP]
        sent = records[:, StepColumn.STAMPS + Stamp.SENT]
        whole = (before != 0) & (before == after) & (before == records[:, StepColumn.STEP])
        chosen: Int64 = records[whole & (sent >= since_ns) & (sent <= until_ns)]
        return chosen[np.argsort(chosen[:, StepColumn.STEP])]

    @property
    def ready(self) -> bool:
        """All stages behind the front take work."""
        views = self._views
        return all(int(region[0]) == 1 for region in (views.preprocess, views.inference, views.sampling))


def open_stats(handle: StatsHandle) -> StatsPage:
    """The page behind a handle that this process inherited; the handle's descriptor is duplicated."""
    return StatsPage.from_handle(StatsHandle(os.dup(handle.fd)))
