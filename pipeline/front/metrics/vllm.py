"""vLLM's names for our metrics, for what reads them: endpoint pickers, autoscalers, published dashboards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from pipeline.front.settings import FrontSettings

_OURS, _THEIRS = "ringserve_", "vllm:"
NAMES: Final[Mapping[str, str]] = {
    "requests": "request_success",
    "prompt_tokens": "prompt_tokens",
    "generation_tokens": "generation_tokens",
    "time_to_first_token_seconds": "time_to_first_token_seconds",
    "inter_token_latency_seconds": "inter_token_latency_seconds",
    "request_time_per_output_token_seconds": "request_time_per_output_token_seconds",
    "e2e_request_latency_seconds": "e2e_request_latency_seconds",
    "request_queue_time_seconds": "request_queue_time_seconds",
    "request_prefill_time_seconds": "request_prefill_time_seconds",
    "request_decode_time_seconds": "request_decode_time_seconds",
    "request_inference_time_seconds": "request_inference_time_seconds",
    "request_prompt_tokens": "request_prompt_tokens",
    "request_generation_tokens": "request_generation_tokens",
    "request_params_max_tokens": "request_params_max_tokens",
    "num_requests_waiting": "num_requests_waiting",
    "num_requests_running": "num_requests_running",
    "kv_cache_usage": "kv_cache_usage_perc",
    "prefix_cache_queries": "prefix_cache_queries",
    "prefix_cache_hits": "prefix_cache_hits",
    "num_preemptions": "num_preemptions",
    "iteration_tokens": "iteration_tokens_total",
}
"""Families, without their prefixes."""

_FINISHED: Final = {"length": "length", "eos": "stop", "stop": "stop"}
"""Outcomes that are successes, and their `finished_reason`; the others are no successes."""


def in_vllm(family: Metric) -> str:
    """The family's name there; empty if it has none."""
    name = NAMES.get(family.name.removeprefix(_OURS), "")
    return _THEIRS + name if name else ""


def renamed(families: Iterable[Metric], model: str) -> Iterator[Metric]:
    """The families that vLLM has, too, with its names and labels."""
    for family in families:
        if name := in_vllm(family):
            other = Metric(name, family.documentation, family.type)
            other.samples = _samples(family, name, model)
            yield other


def cache_config(settings: FrontSettings) -> Metric:
    """Always 1; by its labels pickers know in which blocks prompts are hashed, and how many there are."""
    family = Metric(f"{_THEIRS}cache_config_info", "Sizes of the KV cache", "gauge")
    sizes = {"block_size": settings.block_size, "num_gpu_blocks": settings.cached_tokens // settings.block_size}
    for replica in range(settings.replicas):
        labels = {"model_name": settings.model_name, "engine": replica, **sizes}
        family.add_sample(family.name, {name: str(value) for name, value in labels.items()}, 1)
    return family


def _samples(family: Metric, name: str, model: str) -> list[Sample]:
    values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = defaultdict(float)
    for sample in family.samples:
        labels = {"model_name": model, "engine": "0", **sample.labels}
        if "replica" in labels:
            labels["engine"] = labels.pop("replica")
        if "outcome" in labels:
            if (reason := _FINISHED.get(labels.pop("outcome"))) is None:
                continue
            labels["finished_reason"] = reason
        values[name + sample.name.removeprefix(family.name), tuple(labels.items())] += sample.value
    return [Sample(sample_name, dict(labels), value) for (sample_name, labels), value in values.items()]
