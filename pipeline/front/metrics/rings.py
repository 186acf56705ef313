"""How full the rings are, and what waiting for them costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import Metric

from pipeline.front.metrics.families import Labelled, Labels, counter, gauge
from pipeline.stats import EndReading, RingReading, StatsReader
from pipeline.wire.topology import Topology

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
    rings, topology = stats.rings(), stats.topology

    def each(value: Callable[[RingReading], float]) -> Labelled:
        return (({**topology.ring_labels(ring.spec), "unit": ring.spec.flow.unit}, value(ring)) for ring in rings)

    used, passed = "Slots or bytes in use: published and not yet consumed", "Slots or bytes that have been consumed"
    yield gauge("ring_used", used, each(lambda ring: ring.used))
    yield gauge("ring_capacity", "Slots or bytes in total", each(lambda ring: ring.capacity))
    yield counter("ring_passed", passed, each(lambda ring: ring.consumer.done))
    ends = [end for ring in rings for end in _ends(topology, ring)]
    for name, meaning, value in _ENDS:
        yield counter(f"ring_{name}", meaning, ((labels, value(end)) for labels, end in ends))


def _ends(topology: Topology, ring: RingReading) -> Iterator[tuple[Labels, EndReading]]:
    """The ring's replica also where a front, which has none, is at its end."""
    for side, ends in (("producer", (ring.producer,)), ("consumer", ring.consumers)):
        for end in ends:
            yield {**topology.ring_labels(ring.spec), "side": side, **topology.labels(end.stage)}, end
