"""A sample of all counters at one moment."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from pipeline.front.metrics import read_process
from pipeline.stats import (
    STAGE_COUNTERS,
    Histogram,
    HistogramSnapshot,
    RequestHistogram,
    RingReading,
    StatsReader,
    StepColumn,
    StepHistogram,
)

WATCHED: tuple[Histogram, ...] = (
    RequestHistogram.TTFT,
    RequestHistogram.ITL,
    StepHistogram.OVERHEAD,
    StepHistogram.DEVICE,
)


@dataclass(frozen=True, slots=True)
class Sample:
    """`counters` by role, sums over all its stages; ends of rings; the last step of each replica, as a sum; CPU time
    in seconds by stage."""

    at_s: float  # of the monotonic clock
    ready: bool
    counters: Mapping[str, Mapping[str, int]]
    histograms: Mapping[tuple[str, str], HistogramSnapshot]  # by kind and name
    rings: tuple[RingReading, ...]
    step_rows: int
    step_decode_rows: int
    step_tokens: int
    cpu_s: Mapping[str, float]
    states: Mapping[str, str]  # of the stages, as the launcher sees them
    restarts: int

    @classmethod
    def take(cls, stats: StatsReader) -> Self:
        """Takes about half a millisecond."""
        topology = stats.topology
        stages = [stage.key for stage in topology.stages]
        step = sum(map(stats.last_step, range(1, topology.replicas)), stats.last_step())
        cpu = {stage: process.cpu_s for stage, pid in stats.pids().items() if (process := read_process(pid))}
        return cls(
            at_s=time.monotonic(),
            ready=stats.ready,
            counters={role: stats.counters(kind) for role, kind in STAGE_COUNTERS.items()},
            histograms={key(each): stats.histogram(each) for each in WATCHED},
            rings=tuple(stats.rings()),
            step_rows=int(step[StepColumn.ROWS]),
            step_decode_rows=int(step[StepColumn.DECODE_ROWS]),
            step_tokens=int(step[StepColumn.TOKENS]),
            cpu_s=cpu,
            states={stage: stats.state(stage).name.lower() for stage in stages},
            restarts=sum(map(stats.restarts, stages)),
        )


def key(histogram: Histogram) -> tuple[str, str]:
    """Unique, unlike the members themselves: members of different kinds are equal as numbers."""
    return type(histogram).__name__, histogram.name
