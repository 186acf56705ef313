"""How full the rings are, and what waiting for them costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import Metric

from pipeline.front.metrics.families import Labelled, counters, gauges
from pipeline.stats import EndReading, RingReading, StatsReader

_ENDS: tuple[tuple[str, str, Callable[[EndReading], float]], ...] = (
    ("wakes", "Wake-ups sent to the other side, a system call each", lambda end: end.wakes),
    ("waits", "Waits that did not find at once what they needed", lambda end: end.waits),
    (
        "parks",
        "Times it slept on a futex, in slices of at most 40 ms; sleeping on an eventfd is not counted",
        lambda end: end.parks,
    ),
    ("spin_seconds", "Time spent spinning", lambda end: end.spin_ns / 1e9),
    ("lost_wakes", "Sleeps that ran out though data was there; must stay 0", lambda end: end.lost_wakes),
)


def ring_metrics(stats: StatsReader) -> Iterator[Metric]:
    rings = stats.rings()
    labels = ("ring", "unit")
    yield gauges("ring_used", "What is published and not yet given back", labels, _each(rings, lambda r: r.used))
    yield gauges("ring_capacity", "What the ring holds", labels, _each(rings, lambda r: r.capacity))
    yield counters(
        "ring_passed", "What has been published and given back", labels, _each(rings, lambda r: r.consumer.done)
    )
    ends = [
        ((ring.name, side, end.stage), end)
        for ring in rings
        for side, end in (("producer", ring.producer), ("consumer", ring.consumer))
    ]
    for name, meaning, value in _ENDS:
        yield counters(f"ring_{name}", meaning, ("ring", "side", "stage"), ((who, value(end)) for who, end in ends))


def _each(rings: list[RingReading], value: Callable[[RingReading], float]) -> Labelled:
    return (((ring.name, ring.unit), value(ring)) for ring in rings)
