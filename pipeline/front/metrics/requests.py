"""What became of requests, and how long it took them."""

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
        "From the arrival of a request until its first token is written",
    ),
    (RequestHistogram.ITL, "inter_token_latency_seconds", "Between two tokens of a request"),
    (
        RequestHistogram.TPOT,
        "request_time_per_output_token_seconds",
        "Mean time between two tokens, one observation per answered request",
    ),
    (
        RequestHistogram.E2E,
        "e2e_request_latency_seconds",
        "From the arrival of a request until its last token is written",
    ),
    (
        RequestHistogram.QUEUE,
        "request_queue_time_seconds",
        "From the arrival of a request to its place in the batch, tokenizing included",
    ),
    (RequestHistogram.PREFILL, "request_prefill_time_seconds", "From the place in the batch to the first token"),
    (RequestHistogram.DECODE, "request_decode_time_seconds", "From the first token to the last"),
    (RequestHistogram.INFERENCE, "request_inference_time_seconds", "From the place in the batch to the last token"),
    (RequestHistogram.PROMPT_TOKENS, "request_prompt_tokens", "Prompt tokens per answered request"),
    (RequestHistogram.GENERATED_TOKENS, "request_generation_tokens", "Tokens written per answered request"),
    (
        RequestHistogram.MAX_TOKENS,
        "request_params_max_tokens",
        "Tokens that an answered request had allowed at most",
    ),
    (RequestHistogram.TEXTS, "request_texts", "Texts that a request asked for: prompts times `n`"),
)


def request_metrics(stats: StatsReader) -> Iterator[Metric]:
    front = stats.counters(FrontCounter)
    ends = (((outcome,), front[outcome]) for outcome in _OUTCOMES)
    yield counters(
        "requests",
        "Requests by how they ended: `length`, `eos`, `stop` were answered; `failed`: by the server (5xx); "
        "`cancelled`: the client went away or did not read; `refused`: 4xx; `rejected`: 429, no room",
        ("outcome",),
        ends,
    )
    yield counter("prompt_tokens", "Prompt tokens of requests that ended", front["prompt_tokens"])
    yield counter("generation_tokens", "Tokens written to clients", front["generated_tokens"])
    yield counter("dropped_tokens", "Tokens of requests that were cancelled already", front["dropped_deltas"])
    yield gauge("requests_in_flight", "Requests the front waits for", front["in_flight"])
    for which, name, meaning in _HISTOGRAMS:
        yield histogram(name, meaning, stats.histogram(which))
