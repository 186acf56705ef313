"""Requests: how they end, sizes and latencies; the queue, the batch and the KV cache of each replica."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from prometheus_client.core import Metric

from pipeline.front.metrics.families import Labelled, counter, gauge, histogram
from pipeline.stats import NO_USE, FrontCounter, PreprocessCounter, RequestHistogram, StatsReader
from pipeline.wire.topology import PREPROCESS

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
_GAUGES = (
    ("num_requests_waiting", "waiting", "Requests in the queue"),
    ("num_requests_tokenizing", "waiting_for_prompt", "Requests in the queue whose prompt is not tokenized yet"),
    ("characters_tokenizing", "waiting_chars", "Characters of prompts that are not tokenized yet"),
    ("num_requests_running", "running", "Rows of the batch in use"),
    ("kv_blocks", "kv_blocks_total", "KV cache blocks in total"),
    ("kv_blocks_used", "kv_blocks_used", "KV cache blocks in use"),
    (
        "kv_blocks_cached",
        "cached_blocks",
        "Full KV cache blocks in the prefix cache, which prompts can share, in use or not",
    ),
)
_COUNTERS = (
    ("prefix_cache_queries", "prefix_queries", "Prompt tokens looked up in the prefix cache"),
    ("prefix_cache_hits", "prefix_hits", "Prompt tokens found in the prefix cache"),
    ("num_preemptions", "preemptions", "Preempted requests: their KV blocks are recomputed later"),
    ("admitted_requests", "admitted", "Requests accepted into the queue"),
    ("cancelled_requests", "cancelled", "Cancellations received by preprocess"),
)

_OF_KEYS: Mapping[str, tuple[str, float]] = MappingProxyType(
    {
        "requests": ("Texts that clients with this API key asked for, however they ended; `key`: its name", 1),
        "prompt_tokens": ("Prompt tokens of these requests; a prompt counts once, whatever its `n`", 1),
        "cached_tokens": ("Of these, the ones found in the prefix cache", 1),
        "generated_tokens": ("Tokens generated for these requests", 1),
        "device_ns": (
            "Their share of the devices' time, by their tokens among all of the same steps",
            1e9,
        ),
    }
)


def request_metrics(stats: StatsReader, adapters: Sequence[str], *, by_key: bool) -> Iterator[Metric]:
    front = stats.counters(FrontCounter)
    ends = (({"outcome": outcome}, front[outcome]) for outcome in _OUTCOMES)
    yield counter(
        "requests",
        "Requests by how they ended: `length`, `eos`, `stop` were answered; `failed`: an error of the server (5xx); "
        "`cancelled`: by its id, or the client disconnected or did not read; `refused`: 4xx; `rejected`: 429, queue "
        "full or a limit of the API key",
        ends,
    )
    if adapters:
        named = zip(({"adapter": name} for name in adapters), stats.adapter_requests(), strict=False)
        yield counter("adapter_requests", "Requests for each adapter", named)
    yield from _key_metrics(stats, by_key=by_key)
    yield counter("prompt_tokens", "Prompt tokens of requests that ended", front["prompt_tokens"])
    yield counter("generation_tokens", "Generated tokens written to clients", front["generated_tokens"])
    yield counter("dropped_tokens", "Tokens generated for requests that had been cancelled", front["dropped_deltas"])
    yield gauge("requests_in_flight", "Requests in the pipeline, queued or running", front["in_flight"])
    yield counter("grammars", "Requests for structured output", front["grammars"])
    refused = "Requests for structured output that were refused, since it can't be enforced in full"
    yield counter("refused_grammars", refused, front["grammars_refused"])
    yield counter("tool_calls", "Calls of tools in answers", front["calls"])
    deadlines = "Requests that were not served by their own deadline: broken off (`missed`), or refused at once"
    ends = (({"outcome": outcome}, front[f"deadlines_{outcome}"]) for outcome in ("missed", "refused"))
    yield counter("deadlines", deadlines, ends)
    yield from _span_metrics(front, stats.exporter())
    for which, name, meaning in _HISTOGRAMS:
        yield histogram(name, meaning, [({}, stats.histogram(which))])


def _span_metrics(front: Mapping[str, int], exporter: Mapping[str, int]) -> Iterator[Metric]:
    meaning = (
        "Requests whose spans were given to the exporter (`sent`), or dropped for lack of room; and by the exporter "
        "to the collector, or lost there (`failed`)"
    )
    counts = {"sent": front["spans"], "dropped": front["spans_dropped"], **exporter}
    yield counter("spans", meaning, (({"result": result}, count) for result, count in counts.items()))


def _key_metrics(stats: StatsReader, *, by_key: bool) -> Iterator[Metric]:
    """By the key's name, never by the key. Requests that need none have an empty one, and all have where everybody
    may read this."""
    used: Mapping[str, Mapping[str, int]] = stats.keys() or {"": NO_USE}
    if not by_key:
        used = {"": {name: sum(each[name] for each in used.values()) for name in _OF_KEYS}}
    for name, (meaning, scale) in _OF_KEYS.items():
        each = (({"key": key}, counts[name] / scale) for key, counts in sorted(used.items()))
        yield counter(f"key_{name.replace('device_ns', 'device_seconds')}", meaning, each)


def scheduling_metrics(stats: StatsReader) -> Iterator[Metric]:
    replicas = [
        ({"replica": str(stage.replica)}, stats.counters(PreprocessCounter, stage.key))
        for stage in stats.topology.every(PREPROCESS)
    ]

    def each(value: Callable[[Mapping[str, int]], float]) -> Labelled:
        return ((labels, value(now)) for labels, now in replicas)

    for name, key, meaning in _GAUGES:
        yield gauge(name, meaning, ((labels, now[key]) for labels, now in replicas))
    use = "Share of the KV cache blocks in use, 0 to 1"
    yield gauge("kv_cache_usage", use, each(lambda now: _share(now["kv_blocks_used"], now["kv_blocks_total"])))
    for name, key, meaning in _COUNTERS:
        yield counter(name, meaning, ((labels, now[key]) for labels, now in replicas))
    rate = "Share of prompt tokens found in the prefix cache since start, 0 to 1"
    hit_rate = each(lambda now: _share(now["prefix_hits"], now["prefix_queries"]))
    yield gauge("prefix_cache_hit_rate", rate, hit_rate)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0
