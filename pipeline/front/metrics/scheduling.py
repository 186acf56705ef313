"""The queue, the batch and the KV cache of each replica."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import Metric

from pipeline.front.metrics.families import Labelled, counters, gauges
from pipeline.stats import PreprocessCounter, StatsReader
from pipeline.wire.topology import PREPROCESS

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


def scheduling_metrics(stats: StatsReader) -> Iterator[Metric]:
    replicas = [
        ({"replica": str(stage.replica)}, stats.counters(PreprocessCounter, stage.key))
        for stage in stats.topology.every(PREPROCESS)
    ]

    def each(value: Callable[[Mapping[str, int]], float]) -> Labelled:
        return ((labels, value(now)) for labels, now in replicas)

    for name, counter, meaning in _GAUGES:
        yield gauges(name, meaning, ((labels, now[counter]) for labels, now in replicas))
    use = "Share of the KV cache blocks in use, 0 to 1"
    yield gauges("kv_cache_usage", use, each(lambda now: _share(now["kv_blocks_used"], now["kv_blocks_total"])))
    for name, counter, meaning in _COUNTERS:
        yield counters(name, meaning, ((labels, now[counter]) for labels, now in replicas))
    rate = "Share of prompt tokens found in the prefix cache since start, 0 to 1"
    hit_rate = each(lambda now: _share(now["prefix_hits"], now["prefix_queries"]))
    yield gauges("prefix_cache_hit_rate", rate, hit_rate)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0
