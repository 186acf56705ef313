"""`/debug/trace`: the last steps as Chrome's trace events, which Perfetto and chrome://tracing show.

https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from pipeline.stats import StatsReader, StepColumn
from pipeline.wire.step import Int64, Stamp
from pipeline.wire.topology import BEHIND_FRONT, FRONT, INFERENCE, PREPROCESS, SAMPLING, Role, Topology

Span = tuple[int, int, str]  # begin, end in ns of the monotonic clock; what was done

_KEPT = 100_000
_PARTS = (
    ("schedule", PREPROCESS, Stamp.BEGUN, Stamp.SCHEDULED),
    ("launch", INFERENCE, Stamp.TAKEN, Stamp.LAUNCHED),
    ("device", INFERENCE, Stamp.LAUNCHED, Stamp.COMPUTED),
    ("publish", SAMPLING, Stamp.COMPUTED, Stamp.RECEIVED),
    ("sample", SAMPLING, Stamp.RECEIVED, Stamp.SAMPLED),
    ("detokenize and send", SAMPLING, Stamp.SAMPLED, Stamp.SENT),
)


class Spans:
    """Times of the front's own work, kept only while a trace is recorded: `wanted` is read before `add`."""

    def __init__(self) -> None:
        self.wanted = 0
        self._spans: deque[Span] = deque(maxlen=_KEPT)

    def add(self, begin: int, end: int, name: str) -> None:
        self._spans.append((begin, end, name))

    @contextmanager
    def recording(self) -> Iterator[deque[Span]]:
        self.wanted += 1
        try:
            yield self._spans
        finally:
            self.wanted -= 1
            if not self.wanted:
                self._spans = deque(maxlen=_KEPT)


def trace(stats: StatsReader, since_ns: int, spans: Iterable[Span]) -> bytes:
    """JSON of the events: of the steps that were sent since then, and of `spans`, what the front did. A replica is
    shown as a process, its stages as threads."""
    events = [*_names(stats.topology)]
    for replica in range(stats.topology.replicas):
        events += _step_events(replica, stats.steps(since_ns, replica=replica))
    events += (_event(name, 0, FRONT, begin, end) for begin, end, name in spans)
    return orjson.dumps({"traceEvents": events, "displayTimeUnit": "ms"})


def _thread(role: Role) -> int:
    """In the order of a token's way."""
    return (*BEHIND_FRONT, FRONT).index(role) + 1


def _names(topology: Topology) -> Iterator[dict[str, Any]]:
    for replica in range(topology.replicas):
        process = {"ph": "M", "pid": replica + 1}
        name = f"ringserve replica {replica}" if topology.replicas > 1 else "ringserve"
        yield {**process, "name": "process_name", "args": {"name": name}}
        for role in (*BEHIND_FRONT, *([] if replica else [FRONT])):
            yield {**process, "tid": _thread(role), "name": "thread_name", "args": {"name": role.name}}


def _step_events(replica: int, steps: Int64) -> Iterator[dict[str, Any]]:
    for record in steps.tolist():
        stamps = record[StepColumn.STAMPS :]
        args = {
            "step": record[StepColumn.STEP],
            "tokens": record[StepColumn.TOKENS],
            "rows": record[StepColumn.ROWS],
            "decode_rows": record[StepColumn.DECODE_ROWS],
        }
        for name, role, begin, end in _PARTS:
            if stamps[begin]:
                yield {**_event(name, replica, role, stamps[begin], stamps[end]), "args": args}


def _event(name: str, replica: int, role: Role, begin_ns: int, end_ns: int) -> dict[str, Any]:
    """A complete event; times in µs."""
    where = {"ph": "X", "pid": replica + 1, "tid": _thread(role)}
    return {**where, "name": name, "ts": begin_ns / 1e3, "dur": (end_ns - begin_ns) / 1e3}
