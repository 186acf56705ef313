"""From answers to figures. Definitions and names are those of ``vllm bench serve``.

* TTFT: from the start of a request to its first token.
* ITL: between two tokens that came one after the other; every gap of every request counts once.
* TPOT: (E2EL - TTFT) / (output tokens - 1) of a request; requests of one token have none.
* E2EL: from the start of a request to the last piece of its answer.
* Goodput: requests per second that hold every service level objective. A request of one token has a TPOT of 0 there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scripts.bench.serving.apis import Answer

METRICS = {
    "ttft": "Time to First Token",
    "tpot": "Time per Output Token (excl. 1st token)",
    "itl": "Inter-token Latency",
    "e2el": "End-to-end Latency",
}
OBJECTIVES = ("ttft", "tpot", "e2el")
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Summary:
    """Of one metric over a run, in milliseconds; `std` is that of the population, as numpy has it."""

    mean: float
    median: float
    std: float
    percentiles: Mapping[float, float]


@dataclass(frozen=True, slots=True)
class Metrics:
    completed: int
    failed: int
    duration: float  # seconds
    score: float  # seconds from the first start to the last answer
    total_input_tokens: int
    total_output_tokens: int
    request_throughput: float  # per second
    request_goodput: float | None
    output_throughput: float
    total_token_throughput: float
    max_output_tokens_per_s: float
    max_concurrent_requests: int
    summaries: Mapping[str, Summary]


def compute(
    answers: Sequence[Answer], duration_s: float, percentiles: Sequence[float], objectives: Mapping[str, float]
) -> Metrics:
    """`objectives` are milliseconds by metric; `duration_s` is on the same clock as the answers."""
    good = [answer for answer in answers if answer.success]
    inputs, outputs = sum(a.prompt_tokens for a in good), sum(a.output_tokens for a in good)
    return Metrics(
        completed=len(good),
        failed=len(answers) - len(good),
        duration=duration_s,
        score=max(a.end_time for a in good) - min(a.start_time for a in good) if good else 0.0,
        total_input_tokens=inputs,
        total_output_tokens=outputs,
        request_throughput=len(good) / duration_s,
        request_goodput=sum(_is_good(a, objectives) for a in good) / duration_s if objectives else None,
        output_throughput=outputs / duration_s,
        total_token_throughput=(inputs + outputs) / duration_s,
        max_output_tokens_per_s=peak_tokens_per_s(good),
        max_concurrent_requests=peak_concurrency(good),
        summaries={name: summarize(seconds, percentiles) for name, seconds in distributions(good).items()},
    )


def distributions(good: Sequence[Answer]) -> dict[str, list[float]]:
    """Seconds by metric."""
    return {
        "ttft": [a.ttft for a in good],
        "tpot": [tpot_s(a) for a in good if a.output_tokens > 1],
        "itl": [gap for a in good for gap in a.itl],
        "e2el": [a.latency for a in good],
    }


def tpot_s(answer: Answer) -> float:
    if answer.output_tokens < 2:
        return 0.0
    return (answer.latency - answer.ttft) / (answer.output_tokens - 1)


def _is_good(answer: Answer, objectives: Mapping[str, float]) -> bool:
    seconds = {"ttft": answer.ttft, "tpot": tpot_s(answer), "e2el": answer.latency}
    return all(seconds[name] * 1000 <= limit_ms for name, limit_ms in objectives.items())


def summarize(seconds: Sequence[float], percentiles: Sequence[float]) -> Summary:
    """All zero where there is nothing, as in vLLM."""
    ms = np.asarray(seconds or [0.0]) * 1000
    at = {p: float(np.percentile(ms, p)) for p in percentiles}
    return Summary(float(ms.mean()), float(np.median(ms)), float(ms.std()), at)


def token_times_s(answers: Sequence[Answer]) -> Float64:
    """When each token came, answer by answer."""
    parts = [a.start_time + a.ttft + np.concatenate([[0.0], np.cumsum(a.itl)]) for a in answers]
    return np.concatenate(parts) if parts else np.zeros(0)


def peak_tokens_per_s(answers: Sequence[Answer]) -> float:
    """Most tokens that came in any second, seconds counted from the first start."""
    if not answers:
        return 0.0
    zero = min(a.start_time for a in answers)
    return float(np.bincount((token_times_s(answers) - zero).astype(np.int64)).max())


def under_way(answers: Sequence[Answer]) -> Float64:
    """`[2, changes]`: moments, and how many requests are under way from then on; one that ends as another starts is
    not counted with it."""
    events = sorted([(a.start_time, 1) for a in answers] + [(a.end_time, -1) for a in answers])
    times, steps = np.array(events, np.float64).reshape(-1, 2).T
    return np.stack([times, np.cumsum(steps)])


def peak_concurrency(answers: Sequence[Answer]) -> int:
    return int(under_way(answers)[1].max(initial=0))
