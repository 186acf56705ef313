"""How full the rings are, and what waiting for them costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import Metric

from pipeline.front.metrics.families import Labelled, counters, gauges
from pipeline.stats import EndReading, RingReading, StatsReader

_ENDS: tuple[tuple[str, str, Callable[[EndReading], float]], ...] = (
    ("wakes", "Wake-ups sent to the other side, a system call each", lambda end: end.wakes),
    ("waits", "Times that data or room was not there at once, and this side had to wait", lambda end: end.waits),
    (
        "parks",
        "Times that this side slept on a futex, in slices of at most 40 ms; sleeps on an eventfd are not counted",
        lambda end: end.parks,
    ),
    ("spin_seconds", "Time spent spinning", lambda end: end.spin_ns / 1e9),
    (
        "lost_wakes",
        "Sleeps that timed out though data was there (lost wake-ups); must stay 0",
        lambda end: end.lost_wakes,
    ),
)


def ring_metrics(stats: StatsReader) -> Iterator[Metric]:
    rings = stats.rings()
    labels = ("ring", "unit")
    used, passed = "Slots or bytes in use: published and not yet consumed", "Slots or bytes that have been consumed"
    yield gauges("ring_used", used, labels, _each(rings, lambda r: r.used))
    yield gauges("ring_capacity", "Slots or bytes in total", labels, _each(rings, lambda r: r.capacity))
    yield counters("ring_passed", passed, labels, _each(rings, lambda r: r.consumer.done))
    ends = [
        ((ring.name, side, end.stage), end)
        for ring in rings
        for side, end in (("producer", ring.producer), ("consumer", ring.consumer))
    ]
    for name, meaning, value in _ENDS:
        values = ((which, value(end)) for which, end in ends)
        yield counters(f"ring_{name}", meaning, ("ring", "side", "stage"), values)


def _each(rings: list[RingReading], value: Callable[[RingReading], float]) -> Labelled:
    return (((ring.name, ring.unit), value(ring)) for ring in rings)
