"""Steps, the parts of their time, and the host overhead between two of them."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

from prometheus_client.core import Metric

from pipeline.front.metrics.families import Labelled, Labels, counters, histograms
from pipeline.stats import (
    STAGE_COUNTERS,
    HistogramSnapshot,
    InferenceCounter,
    RequestHistogram,
    SamplingCounter,
    StatsReader,
    StepHistogram,
)
from pipeline.wire.topology import BEHIND_FRONT, FRONT, INFERENCE, SAMPLING, Role

_PARTS = (
    StepHistogram.SCHEDULE,
    StepHistogram.WAIT_FOR_DESCRIPTOR,
    StepHistogram.LAUNCH,
    StepHistogram.DEVICE,
    StepHistogram.PUBLISH,
    StepHistogram.SAMPLE,
    StepHistogram.FEEDBACK,
)
_WAITS = (("draw", "waited_for_draw"), ("edit", "waited_for_edit"))


def step_metrics(stats: StatsReader) -> Iterator[Metric]:
    topology = stats.topology
    replicas = [{"replica": str(replica)} for replica in range(topology.replicas)]

    def each(kind: type[IntEnum], role: Role, counter: str) -> Labelled:
        """Of one stage per replica: every rank does the same steps."""
        stages = [topology.find(role, replica) for replica in range(topology.replicas)]
        values = (stats.counters(kind, stage.key)[counter] for stage in stages)
        return zip(replicas, values, strict=True)

    def histogram(which: StepHistogram, **labels: str) -> Iterator[tuple[Labels, HistogramSnapshot]]:
        return (({**replica, **labels}, stats.histogram(which, i)) for i, replica in enumerate(replicas))

    yield counters("steps", "Steps done, by stage", _steps(stats))
    greedy = each(InferenceCounter, INFERENCE, "greedy_steps")
    yield counters("greedy_steps", "Steps whose tokens are the argmax taken on the device", greedy)
    waited = [
        ({**labels, "reason": reason}, count)
        for reason, counter in _WAITS
        for labels, count in each(InferenceCounter, INFERENCE, counter)
    ]
    yield counters(
        "waited_steps",
        "Steps that waited until sampling had chosen the tokens of the step before, and why: a token is drawn at a "
        "temperature, or its logits are edited by a penalty, a bias or a ban. A step may count for both",
        waited,
    )
    tokens = each(SamplingCounter, SAMPLING, "tokens")
    yield counters("sampled_tokens", "Tokens published by sampling", tokens)
    failed = each(SamplingCounter, SAMPLING, "failed_rows")
    yield counters("failed_rows", "Rows that failed because their logits gave no token", failed)
    new = histogram(StepHistogram.TOKENS)
    yield histograms("iteration_tokens", "New tokens per step, of prompts and answers", new)
    yield histograms(
        "host_overhead_seconds",
        "Host overhead per step: the time between two tokens less the device's. Consecutive steps only, without idle "
        "times",
        histogram(StepHistogram.OVERHEAD),
    )
    yield counters(
        "host_overhead_stage_seconds",
        "Host overhead by the stage that the device waited for; the time of a handover counts as the receiver's",
        _overhead(stats),
    )
    parts = [one for part in _PARTS for one in histogram(part, part=part.name.lower())]
    yield histograms(
        "step_part_seconds",
        "Parts of a step's time; `front`: from reading tokens off the ring to writing them to the socket",
        [*parts, ({"part": FRONT.name}, stats.histogram(RequestHistogram.FRONT))],
    )


def _steps(stats: StatsReader) -> Labelled:
    for stage in stats.topology.stages:
        if not stage.is_front:
            steps = stats.counters(STAGE_COUNTERS[stage.name], stage.key)["steps"]
            yield stats.topology.labels(stage), steps


def _overhead(stats: StatsReader) -> Labelled:
    for replica in range(stats.topology.replicas):
        sampling = stats.counters(SamplingCounter, stats.topology.find(SAMPLING, replica).key)
        for role in BEHIND_FRONT:
            labels = {"stage": role.name, "replica": str(replica)}
            yield labels, sampling[f"overhead_{role.name}_ns"] / 1e9
