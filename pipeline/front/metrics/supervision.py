"""Restarts by the launcher, and garbage collections of the stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import Metric

from pipeline.front.metrics.families import Labelled, counter, counters, gauges
from pipeline.stats import FrontCounter, StatsReader


def supervision_metrics(stats: StatsReader) -> Iterator[Metric]:
    topology = stats.topology

    def each(value: Callable[[str], float]) -> Labelled:
        return ((topology.labels(stage), value(stage.key)) for stage in topology.stages)

    generations = [({"replica": str(replica)}, stats.generation(replica)) for replica in range(topology.replicas)]
    yield gauges("generation", "Generation of rings: sets handed to the stages since start", generations)
    yield counters("restarts", "Restarts of a stage after it died", each(stats.restarts))
    resumed = stats.counters(FrontCounter)["resumed"]
    yield counter("requests_resumed", "Requests resumed after a stage died", resumed)
    longest = "Longest garbage collection of the stage while it served"
    yield gauges("gc_pause_max_seconds", longest, each(stats.gc_pause_s))
