"""Outcomes, sizes and latencies of requests."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from pipeline.front.metrics.families import counter, counters, gauge, histogram
from pipeline.stats import FrontCounter, RequestHistogram, StatsReader

_OUTCOMES = ("length", "eos", "stop", "failed", "cancelled", "refused", "rejected")
_HISTOGRAMS = (
    (
        RequestHistogram.TTFT,
        "time_to_first_token_seconds",
        "Time from the arrival of a request until its first token is written",
    ),
    (RequestHistogram.ITL, "inter_token_latency_seconds", "Time between two tokens of a request"),
    (
        RequestHistogram.TPOT,
        "request_time_per_output_token_seconds",
        "Mean time between two tokens, one observation per answered request",
    ),
    (
        RequestHistogram.E2E,
        "e2e_request_latency_seconds",
        "Time from the arrival of a request until its last token is written",
    ),
    (
        RequestHistogram.QUEUE,
        "request_queue_time_seconds",
        "Time from the arrival of a request until it gets a row of the batch, tokenizing included",
    ),
    (RequestHistogram.PREFILL, "request_prefill_time_seconds", "Time from getting a row to the first token"),
    (RequestHistogram.DECODE, "request_decode_time_seconds", "Time from the first token to the last"),
    (RequestHistogram.INFERENCE, "request_inference_time_seconds", "Time from getting a row to the last token"),
    (RequestHistogram.PROMPT_TOKENS, "request_prompt_tokens", "Prompt tokens per answered request"),
    (RequestHistogram.GENERATED_TOKENS, "request_generation_tokens", "Generated tokens per answered request"),
    (
        RequestHistogram.MAX_TOKENS,
        "request_params_max_tokens",
        "Limit of generated tokens (`max_tokens`) per answered request",
    ),
    (RequestHistogram.TEXTS, "request_texts", "Texts per request: prompts times `n`"),
)


def request_metrics(stats: StatsReader) -> Iterator[Metric]:
    front = stats.counters(FrontCounter)
    ends = (({"outcome": outcome}, front[outcome]) for outcome in _OUTCOMES)
    yield counters(
        "requests",
        "Requests by how they ended: `length`, `eos`, `stop` were answered; `failed`: an error of the server (5xx); "
        "`cancelled`: the client disconnected or did not read; `refused`: 4xx; `rejected`: 429, queue full",
        ends,
    )
    yield counter("prompt_tokens", "Prompt tokens of requests that ended", front["prompt_tokens"])
    yield counter("generation_tokens", "Generated tokens written to clients", front["generated_tokens"])
    yield counter("dropped_tokens", "Tokens generated for requests that had been cancelled", front["dropped_deltas"])
    yield gauge("requests_in_flight", "Requests in the pipeline, queued or running", front["in_flight"])
    for which, name, meaning in _HISTOGRAMS:
        yield histogram(name, meaning, stats.histogram(which))
