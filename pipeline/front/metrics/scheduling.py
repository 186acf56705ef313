"""The queue, the batch and the KV blocks."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from pipeline.front.metrics.families import counter, gauge
from pipeline.stats import PreprocessCounter, StatsReader


def scheduling_metrics(stats: StatsReader) -> Iterator[Metric]:
    now = stats.counters(PreprocessCounter)
    total, used = now["kv_blocks_total"], now["kv_blocks_used"]
    queries, hits = now["prefix_queries"], now["prefix_hits"]
    yield gauge("num_requests_waiting", "Requests in the queue", now["waiting"])
    yield gauge(
        "num_requests_tokenizing", "Of these, requests whose prompt is not tokenized yet", now["waiting_for_prompt"]
    )
    yield gauge("characters_tokenizing", "Characters of those prompts", now["waiting_chars"])
    yield gauge("num_requests_running", "Rows of the batch in use", now["running"])
    yield gauge("kv_cache_usage", "Part of the KV blocks in use, 0 to 1", used / total if total else 0)
    yield gauge("kv_blocks", "KV blocks there are", total)
    yield gauge("kv_blocks_used", "KV blocks in use", used)
    yield gauge(
        "kv_blocks_cached",
        "Full KV blocks that prompts can share, in use or not",
        now["cached_blocks"],
    )
    yield counter("prefix_cache_queries", "Prompt tokens looked up in the prefix cache", queries)
    yield counter("prefix_cache_hits", "Prompt tokens found there", hits)
    yield gauge("prefix_cache_hit_rate", "Part found since start, 0 to 1", hits / queries if queries else 0)
    yield counter("num_preemptions", "Requests that lost their KV blocks and were recomputed", now["preemptions"])
    yield counter("admitted_requests", "Requests that were queued", now["admitted"])
    yield counter("cancelled_requests", "Requests that preprocess was told to stop", now["cancelled"])
