"""Restarts by the launcher, and garbage collections of the stages."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from pipeline.front.metrics.families import counter, counters, gauge, gauges
from pipeline.stats import STAGES, FrontCounter, LauncherCounter, StatsReader


def supervision_metrics(stats: StatsReader) -> Iterator[Metric]:
    launcher, label = stats.counters(LauncherCounter), ("stage",)
    yield gauge("generation", "Generation of rings: sets handed to the stages since start", launcher["generation"])
    restarts = [((stage,), launcher[f"{stage}_restarts"]) for stage in STAGES]
    yield counters("restarts", "Restarts of a stage after it died", label, restarts)
    resumed = stats.counters(FrontCounter)["resumed"]
    yield counter("requests_resumed", "Requests resumed after a stage died", resumed)
    pauses = [((stage,), stats.gc_pause_s(stage)) for stage in STAGES]
    yield gauges("gc_pause_max_seconds", "Longest garbage collection of the stage while it served", label, pauses)
