"""What the launcher had to do, and pauses that stages made by themselves."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from pipeline.front.metrics.families import counter, counters, gauge, gauges
from pipeline.stats import STAGES, FrontCounter, LauncherCounter, StatsReader


def supervision_metrics(stats: StatsReader) -> Iterator[Metric]:
    launcher, label = stats.counters(LauncherCounter), ("stage",)
    yield gauge("generation", "Sets of rings handed out since start", launcher["generation"])
    restarts = [((stage,), launcher[f"{stage}_restarts"]) for stage in STAGES]
    yield counters("restarts", "Starts of a stage that had died", label, restarts)
    resumed = stats.counters(FrontCounter)["resumed"]
    yield counter("requests_resumed", "Requests that went on after a stage had died", resumed)
    pauses = [((stage,), stats.gc_pause_s(stage)) for stage in STAGES]
    yield gauges("gc_pause_max_seconds", "Longest garbage collection since the stage began to serve", label, pauses)
