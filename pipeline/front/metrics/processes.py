"""The stage processes: their CPU time, memory and threads; restarts by the launcher, and garbage collections."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.core import Metric

from pipeline.front.metrics.families import Labelled, counter, gauge
from pipeline.stats import FrontCounter, StatsReader


@dataclass(frozen=True, slots=True)
class Process:
    cpu_s: float
    resident_bytes: int
    started_s: float  # since boot
    threads: int


def process_metrics(stats: StatsReader) -> Iterator[Metric]:
    topology, boot_s = stats.topology, _boot_time_s()
    found = [
        (topology.labels(topology.stage(stage)), process)
        for stage, pid in stats.pids().items()
        if (process := read_process(pid))
    ]

    def each(value: Callable[[Process], float]) -> Labelled:
        return ((labels, value(process)) for labels, process in found)

    yield counter("process_cpu_seconds", "CPU time of the stage", each(lambda process: process.cpu_s))
    yield gauge(
        "process_resident_memory_bytes",
        "Resident memory of the stage, shared memory included",
        each(lambda process: process.resident_bytes),
    )
    yield gauge(
        "process_start_time_seconds",
        "Start time of the stage, in seconds since the Unix epoch",
        each(lambda process: boot_s + process.started_s),
    )
    yield gauge("process_threads", "Threads of the stage", each(lambda process: process.threads))


def supervision_metrics(stats: StatsReader) -> Iterator[Metric]:
    topology = stats.topology

    def each(value: Callable[[str], float]) -> Labelled:
        return ((topology.labels(stage), value(stage.key)) for stage in topology.stages)

    generations = [({"replica": str(replica)}, stats.generation(replica)) for replica in range(topology.replicas)]
    yield gauge("generation", "Generation of rings: sets handed to the stages since start", generations)
    yield counter("restarts", "Restarts of a stage after it died", each(stats.restarts))
    resumed = stats.counters(FrontCounter)["resumed"]
    yield counter("requests_resumed", "Requests resumed after a stage died", resumed)
    longest = "Longest garbage collection of the stage while it served"
    yield gauge("gc_pause_max_seconds", longest, each(stats.gc_pause_s))


def read_process(pid: int) -> Process | None:
    """From proc(5); None when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    state, user, system, threads, started, pages = fields[0], *(int(fields[i]) for i in (11, 12, 17, 19, 21))
    if state == "Z":
        return None
    return Process(
        cpu_s=(user + system) / ticks,
        resident_bytes=pages * os.sysconf("SC_PAGESIZE"),
        started_s=started / ticks,
        threads=threads,
    )


def _boot_time_s() -> float:
    lines = Path("/proc/stat").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("btime ")))
