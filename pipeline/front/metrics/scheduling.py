"""The queue, the batch and the KV cache."""

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
    tokenizing = now["waiting_for_prompt"]
    yield gauge("num_requests_tokenizing", "Requests in the queue whose prompt is not tokenized yet", tokenizing)
    yield gauge("characters_tokenizing", "Characters of prompts that are not tokenized yet", now["waiting_chars"])
    yield gauge("num_requests_running", "Rows of the batch in use", now["running"])
    yield gauge("kv_cache_usage", "Share of the KV cache blocks in use, 0 to 1", used / total if total else 0)
    yield gauge("kv_blocks", "KV cache blocks in total", total)
    yield gauge("kv_blocks_used", "KV cache blocks in use", used)
    yield gauge(
        "kv_blocks_cached",
        "Full KV cache blocks in the prefix cache, which prompts can share, in use or not",
        now["cached_blocks"],
    )
    yield counter("prefix_cache_queries", "Prompt tokens looked up in the prefix cache", queries)
    yield counter("prefix_cache_hits", "Prompt tokens found in the prefix cache", hits)
    rate = hits / queries if queries else 0
    yield gauge("prefix_cache_hit_rate", "Share of prompt tokens found in the prefix cache since start, 0 to 1", rate)
    yield counter("num_preemptions", "Preempted requests: their KV blocks are recomputed later", now["preemptions"])
    yield counter("admitted_requests", "Requests accepted into the queue", now["admitted"])
    yield counter("cancelled_requests", "Cancellations received by preprocess", now["cancelled"])
