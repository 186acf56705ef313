"""`/metrics`: the statistics page in Prometheus' text form. What vLLM has, too, has its meaning and buckets."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from pipeline.stats import (
    STAGES,
    FrontCounter,
    InferenceCounter,
    LauncherCounter,
    PreprocessCounter,
    RequestTime,
    SamplingCounter,
    StatsReader,
    StepTime,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()

_REQUEST_TIMES = {
    RequestTime.TTFT: ("time_to_first_token_seconds", "From the arrival of a request to its first token"),
    RequestTime.ITL: ("inter_token_latency_seconds", "Between two tokens of a request"),
    RequestTime.E2E: ("e2e_request_latency_seconds", "From the arrival of a request to its last token"),
    RequestTime.QUEUE: ("request_queue_time_seconds", "From the arrival of a request to its place in the batch"),
}
_OUTCOMES = ("length", "eos", "stop", "failed", "cancelled", "refused", "rejected")


class StatsCollector(Collector):
    """Reads the page when Prometheus asks; nothing is kept."""

    def __init__(self, stats: StatsReader) -> None:
        self._stats = stats

    def text(self) -> bytes:
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        yield from self._requests()
        yield from self._scheduling()
        yield from self._steps()
        yield from self._stages()
        for histogram, (name, meaning) in _REQUEST_TIMES.items():
            family = HistogramMetricFamily(f"ringserve_{name}", meaning)
            self._add(family, [], histogram)
            yield family
        yield self._step_times()

    def _requests(self) -> Iterator[Metric]:
        front = self._stats.counters(FrontCounter)
        outcomes = CounterMetricFamily("ringserve_requests", "Requests by how they ended", labels=["outcome"])
        for outcome in _OUTCOMES:
            outcomes.add_metric([outcome], front[outcome])
        yield outcomes
        yield _counter("prompt_tokens", "Prompt tokens of requests that ended", front["prompt_tokens"])
        yield _counter("generation_tokens", "Tokens written to clients", front["generated_tokens"])
        yield _counter("dropped_tokens", "Tokens of requests that were cancelled already", front["dropped_deltas"])
        yield _counter("requests_resumed", "Requests that went on after a stage had died", front["resumed"])
        yield _gauge("requests_in_flight", "Requests the front waits for", front["in_flight"])

    def _scheduling(self) -> Iterator[Metric]:
        now = self._stats.counters(PreprocessCounter)
        total, queries = now["kv_blocks_total"], now["prefix_queries"]
        yield _gauge("num_requests_waiting", "Requests in the queue", now["waiting"])
        yield _gauge("num_requests_running", "Rows of the batch in use", now["running"])
        yield _gauge("kv_cache_usage", "Part of the KV blocks in use", now["kv_blocks_used"] / total if total else 0)
        yield _gauge("kv_blocks", "KV blocks there are", total)
        yield _gauge("kv_blocks_used", "KV blocks in use", now["kv_blocks_used"])
        yield _gauge("kv_blocks_cached", "KV blocks kept for prompts that begin alike", now["cached_blocks"])
        yield _counter("prefix_cache_queries", "Prompt tokens looked up in the prefix cache", queries)
        yield _counter("prefix_cache_hits", "Prompt tokens found there", now["prefix_hits"])
        yield _gauge(
            "prefix_cache_hit_rate", "Part found since start", now["prefix_hits"] / queries if queries else 0
        )
        yield _counter(
            "num_preemptions", "Requests that lost their KV blocks and were recomputed", now["preemptions"]
        )
        yield _counter("admitted_requests", "Requests that were queued", now["admitted"])
        yield _counter("cancelled_requests", "Requests that preprocess was told to stop", now["cancelled"])

    def _steps(self) -> Iterator[Metric]:
        preprocess, inference, sampling = map(
            self._stats.counters, (PreprocessCounter, InferenceCounter, SamplingCounter)
        )
        steps = CounterMetricFamily("ringserve_steps", "Steps by stage", labels=["stage"])
        for stage, counters in (("preprocess", preprocess), ("inference", inference), ("sampling", sampling)):
            steps.add_metric([stage], counters["steps"])
        yield steps
        yield _counter("greedy_steps", "Steps whose tokens the device chose", inference["greedy_steps"])
        yield _counter("sampled_tokens", "Tokens that sampling chose", sampling["tokens"])
        yield _counter("failed_rows", "Rows whose logits gave no token", sampling["failed_rows"])
        yield _gauge("ready", "1 while requests are taken", int(self._stats.ready))

    def _stages(self) -> Iterator[Metric]:
        launcher = self._stats.counters(LauncherCounter)
        yield _gauge("generation", "Sets of rings handed out since start", launcher["generation"])
        restarts = CounterMetricFamily("ringserve_restarts", "Starts of a stage that had died", labels=["stage"])
        pauses = GaugeMetricFamily("ringserve_gc_pause_max_seconds", "Longest garbage collection", labels=["stage"])
        for stage in STAGES:
            restarts.add_metric([stage], launcher[f"{stage}_restarts"])
            pauses.add_metric([stage], self._stats.gc_pause_s(stage))
        yield from (restarts, pauses)

    def _step_times(self) -> Metric:
        family = HistogramMetricFamily(
            "ringserve_step_part_seconds", "Parts of the time from token to token", labels=["part"]
        )
        for part in StepTime:
            self._add(family, [part.name.lower()], part)
        self._add(family, ["front"], RequestTime.FRONT)
        return family

    def _add(self, family: HistogramMetricFamily, labels: list[str], histogram: StepTime | RequestTime) -> None:
        snapshot, total, buckets = self._stats.histogram(histogram), 0, []
        for edge, count in zip((*map(str, snapshot.edges_s), "+Inf"), snapshot.counts, strict=True):
            total += count
            buckets.append((edge, float(total)))
        family.add_metric(labels, buckets, snapshot.sum_s)


def _counter(name: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(f"ringserve_{name}", meaning, value=value)


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(f"ringserve_{name}", meaning, value=value)
