"""`/debug/trace`: the last steps as Chrome's trace events, which Perfetto and chrome://tracing show.

https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from pipeline.front.metrics.spans import Span
from pipeline.stats import StepColumn
from pipeline.wire.step import Int64, Stamp

_STAGES = ("preprocess", "inference", "sampling", "front")
_PREPROCESS, _INFERENCE, _SAMPLING, _FRONT = range(1, 5)

_PARTS = (
    ("schedule", _PREPROCESS, Stamp.BEGUN, Stamp.SCHEDULED),
    ("launch", _INFERENCE, Stamp.TAKEN, Stamp.LAUNCHED),
    ("device", _INFERENCE, Stamp.LAUNCHED, Stamp.COMPUTED),
    ("publish", _SAMPLING, Stamp.COMPUTED, Stamp.RECEIVED),
    ("sample", _SAMPLING, Stamp.RECEIVED, Stamp.SAMPLED),
    ("detokenize and send", _SAMPLING, Stamp.SAMPLED, Stamp.SENT),
)


def trace(steps: Int64, spans: Iterable[Span]) -> bytes:
    """JSON of the events. `steps` as of `StatsReader.steps`, `spans` the front's writes."""
    events = [*_names(), *_step_events(steps), *(_event("write", _FRONT, begin, end) for begin, end in spans)]
    return orjson.dumps({"traceEvents": events, "displayTimeUnit": "ms"})


def _names() -> Iterator[dict[str, Any]]:
    yield {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": "ringserve"}}
    for thread, stage in enumerate(_STAGES, 1):
        yield {"ph": "M", "pid": 1, "tid": thread, "name": "thread_name", "args": {"name": stage}}


def _step_events(steps: Int64) -> Iterator[dict[str, Any]]:
    for record in steps.tolist():
        stamps = record[StepColumn.STAMPS :]
        args = {
            "step": record[StepColumn.STEP],
            "tokens": record[StepColumn.TOKENS],
            "rows": record[StepColumn.ROWS],
            "decode_rows": record[StepColumn.DECODE_ROWS],
        }
        for name, thread, begin, end in _PARTS:
            if stamps[begin]:
                yield {**_event(name, thread, stamps[begin], stamps[end]), "args": args}


def _event(name: str, thread: int, begin_ns: int, end_ns: int) -> dict[str, Any]:
    """A complete event; times in µs."""
    return {"ph": "X", "pid": 1, "tid": thread, "name": name, "ts": begin_ns / 1e3, "dur": (end_ns - begin_ns) / 1e3}
