"""Steps, the parts of their time, and the host overhead between two of them."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from pipeline.front.metrics.families import counter, counters, histogram, histograms
from pipeline.stats import (
    InferenceCounter,
    PreprocessCounter,
    RequestHistogram,
    SamplingCounter,
    StatsReader,
    StepHistogram,
)

_PARTS = (
    StepHistogram.SCHEDULE,
    StepHistogram.WAIT_FOR_DESCRIPTOR,
    StepHistogram.LAUNCH,
    StepHistogram.DEVICE,
    StepHistogram.PUBLISH,
    StepHistogram.SAMPLE,
    StepHistogram.FEEDBACK,
)


def step_metrics(stats: StatsReader) -> Iterator[Metric]:
    preprocess, inference, sampling = map(stats.counters, (PreprocessCounter, InferenceCounter, SamplingCounter))
    by_stage = (("preprocess", preprocess), ("inference", inference), ("sampling", sampling))
    steps = (((stage,), now["steps"]) for stage, now in by_stage)
    yield counters("steps", "Steps done, by stage", ("stage",), steps)
    yield counter("greedy_steps", "Steps whose tokens are the argmax taken on the device", inference["greedy_steps"])
    yield counter("sampled_tokens", "Tokens published by sampling", sampling["tokens"])
    yield counter("failed_rows", "Rows that failed because their logits gave no token", sampling["failed_rows"])
    yield histogram(
        "iteration_tokens", "New tokens per step, of prompts and answers", stats.histogram(StepHistogram.TOKENS)
    )
    yield histogram(
        "host_overhead_seconds",
        "Host overhead per step: the time between two tokens less the device's. Consecutive steps only, without idle "
        "times",
        stats.histogram(StepHistogram.OVERHEAD),
    )
    yield counters(
        "host_overhead_stage_seconds",
        "Host overhead by the stage that the device waited for; the time of a handover counts as the receiver's",
        ("stage",),
        (((stage,), sampling[f"overhead_{stage}_ns"] / 1e9) for stage, _ in by_stage),
    )
    parts = [((part.name.lower(),), stats.histogram(part)) for part in _PARTS]
    yield histograms(
        "step_part_seconds",
        "Parts of a step's time; `front`: from reading tokens off the ring to writing them to the socket",
        ("part",),
        [*parts, (("front",), stats.histogram(RequestHistogram.FRONT))],
    )
