"""Samples of all counters; rates, latencies and gauges from them, as the page shows them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pipeline.front.metrics import read_process
from pipeline.stats import (
    STAGE_COUNTERS,
    Histogram,
    HistogramSnapshot,
    PreprocessCounter,
    RequestHistogram,
    RingReading,
    SamplingCounter,
    StageState,
    StatsReader,
    StepColumn,
    StepHistogram,
)
from pipeline.wire.topology import BEHIND_FRONT, FRONT, PREPROCESS, SAMPLING, Role

RATE_S = 2.0
"""Span of rates and of the split of a step."""

LATENCY_S = 10.0
"""Span of TTFT and ITL: requests may be rare."""

_WATCHED: Sequence[Histogram] = (
    RequestHistogram.TTFT, RequestHistogram.ITL, StepHistogram.OVERHEAD, StepHistogram.DEVICE,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sample:
    """All counters at one moment."""

    at_s: float  # of the monotonic clock
    ready: bool
    counters: Mapping[str, Mapping[str, int]]  # by role, sums over all its stages
    histograms: Mapping[str, HistogramSnapshot]  # by name: members of different kinds are equal as numbers
    rings: tuple[RingReading, ...]
    step: Sequence[int]  # the last one of each replica, as a sum, by StepColumn
    cpu_s: Mapping[str, float]  # by stage
    states: Mapping[str, str]  # of the stages, as the launcher sees them
    replicas: tuple[Mapping[str, int], ...]  # counters of each, where there are several
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
            histograms={each.name: stats.histogram(each) for each in _WATCHED},
            rings=tuple(stats.rings()),
            step=step.tolist(),
            cpu_s=cpu,
            states={stage: stats.state(stage).name.lower() for stage in stages},
            replicas=tuple(_counters(stats, replica) for replica in range(topology.replicas))
            if topology.replicas > 1
            else (),
            restarts=sum(map(stats.restarts, stages)),
        )


def _counters(stats: StatsReader, replica: int) -> Mapping[str, int]:
    preprocess = stats.counters(PreprocessCounter, stats.topology.find(PREPROCESS, replica).key)
    tokens = stats.counters(SamplingCounter, stats.topology.find(SAMPLING, replica).key)["tokens"]
    state = stats.replica_state(replica)
    return {"running": preprocess["running"], "waiting": preprocess["waiting"], "tokens": tokens, "state": state}


def figures(samples: Sequence[Sample]) -> dict[str, Any]:
    """`samples` in order, the newest last. Rates are per second, times in seconds; null: nothing was observed."""
    new = samples[-1]
    front, preprocess = new.counters[FRONT.name], new.counters[PREPROCESS.name]
    recent = Change(_since(samples, RATE_S), new)
    latest = Change(_since(samples, LATENCY_S), new)
    return {
        "ready": new.ready,
        "tokens_per_s": recent.rate(FRONT, "generated_tokens"),
        "steps_per_s": recent.rate(SAMPLING, "steps"),
        "requests_per_s": recent.rate(FRONT, "requests"),
        "ttft_s": latest.mean(RequestHistogram.TTFT),
        "ttft_p99_below_s": latest.below(RequestHistogram.TTFT, 0.99),
        "itl_s": latest.mean(RequestHistogram.ITL),
        "itl_p99_below_s": latest.below(RequestHistogram.ITL, 0.99),
        "step": _step(recent),
        "batch": _batch(new, recent),
        "tokens_per_row": _tokens_per_row(recent),
        "kv": {name: preprocess[f"kv_blocks_{name}"] for name in ("used", "total")}
        | {"cached": preprocess["cached_blocks"]},
        "requests": {
            "waiting": preprocess["waiting"],
            "in_flight": front["in_flight"],
            "preemptions": preprocess["preemptions"],
            "calls": front["calls"],
        },
        "rings": _rings(recent),
        "cpu": recent.cpu(),
        "states": new.states,
        **({"replicas": [*_replicas(recent)]} if new.replicas else {}),
        "restarts": new.restarts,
    }


class Change:
    """From one sample to a later one. A counter that was reset meanwhile, by a restart, counts from 0."""

    def __init__(self, old: Sample, new: Sample) -> None:
        self.old, self.new = old, new
        self.seconds = new.at_s - old.at_s

    def per_second(self, old: float, new: float) -> float:
        return (new - old if new >= old else new) / self.seconds if self.seconds > 0 else 0.0

    def rate(self, role: Role, counter: str) -> float:
        old, new = self.old.counters[role.name], self.new.counters[role.name]
        return self.per_second(old[counter], new[counter])

    def mean(self, histogram: Histogram) -> float | None:
        change = self._change(histogram)
        return change.sum / change.count if change.count else None

    def below(self, histogram: Histogram, share: float) -> float | None:
        """The lowest edge of a bucket with at least this share of the observations below it; None above all."""
        change, seen = self._change(histogram), 0
        for edge, count in zip(change.edges, change.counts, strict=False):
            seen += count
            if change.count and seen >= share * change.count:
                return edge
        return None

    def _change(self, histogram: Histogram) -> HistogramSnapshot:
        old, new = self.old.histograms[histogram.name], self.new.histograms[histogram.name]
        if new.count < old.count:
            return new
        counts = tuple(after - before for before, after in zip(old.counts, new.counts, strict=True))
        return HistogramSnapshot(new.edges, counts, new.sum - old.sum)

    def cpu(self) -> Mapping[str, float]:
        """Share of a CPU, by stage."""
        old = self.old.cpu_s
        return {stage: self.per_second(old.get(stage, 0.0), new) for stage, new in self.new.cpu_s.items()}


def _since(samples: Sequence[Sample], seconds: float) -> Sample:
    """The oldest sample that is not older than that, as seen from the newest."""
    limit = samples[-1].at_s - seconds - 0.1  # clocks are late, never early
    return next(sample for sample in samples if sample.at_s >= limit)


def _step(recent: Change) -> dict[str, Any]:
    """Means over consecutive steps: the device's part, and the host's by stage."""
    overhead = recent.mean(StepHistogram.OVERHEAD)
    parts = {role.name: recent.rate(SAMPLING, f"overhead_{role.name}_ns") for role in BEHIND_FRONT}
    total = sum(parts.values())
    return {
        "device_s": recent.mean(StepHistogram.DEVICE),
        "overhead_s": overhead,
        "overhead_p99_below_s": recent.below(StepHistogram.OVERHEAD, 0.99),
        "split_s": {stage: overhead * part / total for stage, part in parts.items()} if overhead and total else None,
    }


def _batch(new: Sample, recent: Change) -> dict[str, int]:
    """Of the last step of each replica, if there was one lately."""
    step = new.step if recent.rate(SAMPLING, "steps") > 0 else [0] * len(new.step)
    return {
        "running": new.counters[PREPROCESS.name]["running"],
        "decode_rows": step[StepColumn.DECODE_ROWS],
        "prefill_rows": step[StepColumn.ROWS] - step[StepColumn.DECODE_ROWS],
        "tokens": step[StepColumn.TOKENS],
    }


def _replicas(recent: Change) -> Iterator[dict[str, Any]]:
    for old, new in zip(recent.old.replicas, recent.new.replicas, strict=True):
        yield {
            "state": StageState(new["state"]).name.lower(),
            "running": new["running"],
            "waiting": new["waiting"],
            "tokens_per_s": recent.per_second(old["tokens"], new["tokens"]),
        }


def _tokens_per_row(recent: Change) -> float | None:
    """That a step brings, of each row that it samples: more than one, where drafts are right."""
    rows = recent.rate(SAMPLING, "rows")
    return recent.rate(SAMPLING, "tokens") / rows if rows else None


def _rings(recent: Change) -> dict[str, dict[str, Any]]:
    before = {ring.name: ring for ring in recent.old.rings}
    return {
        ring.name: {
            "unit": ring.spec.flow.unit,
            "used": ring.used,
            "capacity": ring.capacity,
            "first": ring.consumer.done % ring.capacity if ring.capacity else 0,  # index of the oldest unit
            "per_s": recent.per_second(before[ring.name].consumer.done, ring.consumer.done),
            "wakes_per_s": recent.per_second(
                before[ring.name].producer.wakes + before[ring.name].consumer.wakes,
                ring.producer.wakes + ring.consumer.wakes,
            ),
        }
        for ring in recent.new.rings
    }
