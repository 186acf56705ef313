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
    yield counters("steps", "Steps by stage", ("stage",), (((stage,), now["steps"]) for stage, now in by_stage))
    yield counter("greedy_steps", "Steps whose tokens the device chose", inference["greedy_steps"])
    yield counter("sampled_tokens", "Tokens that sampling chose", sampling["tokens"])
    yield counter("failed_rows", "Rows whose logits gave no token", sampling["failed_rows"])
    yield histogram(
        "iteration_tokens", "New tokens per step, of prompts and answers", stats.histogram(StepHistogram.TOKENS)
    )
    yield histogram(
        "host_overhead_seconds",
        "Host overhead per step: the time from token to token less the device's. Steps in a row only, idle times do "
        "not count",
        stats.histogram(StepHistogram.OVERHEAD),
    )
    yield counters(
        "host_overhead_stage_seconds",
        "The same time by the stage that the device waited for; a hand-over counts as the receiver's",
        ("stage",),
        (((stage,), sampling[f"overhead_{stage}_ns"] / 1e9) for stage, _ in by_stage),
    )
    parts = [((part.name.lower(),), stats.histogram(part)) for part in _PARTS]
    yield histograms(
        "step_part_seconds",
        "Parts of a step's time; `front`: a write, from the ring to the socket",
        ("part",),
        [*parts, (("front",), stats.histogram(RequestHistogram.FRONT))],
    )
