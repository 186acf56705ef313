"""The tables of docs/metrics.md, from what a server exposes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import Metric

from pipeline.front.metrics.collector import StatsCollector
from pipeline.front.settings import FrontSettings
from pipeline.stats import Counters, StatsPage, StatsReader

_HEADS: Sequence[str] = ("metric", "type", "labels", "meaning", "in vLLM")
_REPLICA = "replica"
_OURS, _VLLM = "ringserve_", "vllm:"
_SAME_IN_VLLM = (
    "num_requests_running", "num_requests_waiting", "num_preemptions_total", "prefix_cache_queries_total",
    "prefix_cache_hits_total", "prompt_tokens_total", "generation_tokens_total", "time_to_first_token_seconds",
    "inter_token_latency_seconds", "request_time_per_output_token_seconds", "e2e_request_latency_seconds",
    "request_queue_time_seconds", "request_prefill_time_seconds", "request_decode_time_seconds",
    "request_inference_time_seconds", "request_prompt_tokens", "request_generation_tokens",
    "request_params_max_tokens",
)  # fmt: skip
_OTHER_IN_VLLM = (
    ("requests_total", "request_success_total"),
    ("kv_cache_usage", "kv_cache_usage_perc"),
    ("iteration_tokens", "iteration_tokens_total"),
)


def tables() -> dict[str, str]:
    sections = exposed()
    buckets = [line for families in sections.values() for family in families for line in _buckets(family)]
    return {section: _table(families) for section, families in sections.items()} | {
        "buckets": "\n".join(["| histogram | upper edges of the buckets |", "|---|---|", *buckets, ""])
    }


def exposed() -> dict[str, list[Metric]]:
    """The families of a server that has not served yet, by section."""
    page = StatsPage.create()
    page.unlink()
    for stage in page.topology.stages:
        Counters(page, stage.key).set_ready()
    settings = FrontSettings(model_name="…", vocab_size=1, max_length=1, max_prompt=1, max_rows=1, max_queue=1)
    collector = StatsCollector(StatsReader(page), settings)
    found = {section: list(families) for section, families in collector.sections()}
    page.close()
    return found


def _table(families: Iterable[Metric]) -> str:
    rows = [_row(family) for family in families]
    columns = len(_HEADS) if any(row[-1] for row in rows) else len(_HEADS) - 1
    lines = (_HEADS, ["---"] * columns, *rows)
    return "".join(f"| {' | '.join(cells[:columns])} |\n" for cells in lines)


def _row(family: Metric) -> Sequence[str]:
    name = _exposed_name(family)
    return f"`{name}`", family.type, _labels(family), family.documentation, _in_vllm(name)


def _exposed_name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def _labels(family: Metric) -> str:
    values: dict[str, dict[str, None]] = {}
    for sample in family.samples:
        for label, value in sample.labels.items():
            if label != "le":
                values.setdefault(label, {})[value] = None
    listed = len(values) - (_REPLICA in values) == 1  # else the column would be too wide
    return ", ".join(
        f"`{label}`: {', '.join(known)}" if listed and label != _REPLICA else f"`{label}`"
        for label, known in sorted(values.items(), key=lambda of: of[0] != _REPLICA)
    )


def _in_vllm(name: str) -> str:
    plain = name.removeprefix(_OURS)
    same = {known: known for known in _SAME_IN_VLLM} | dict(_OTHER_IN_VLLM)
    return f"`{_VLLM}{same[plain]}`" if plain in same else ""


def _buckets(family: Metric) -> Iterator[str]:
    if family.type == "histogram":
        edges = dict.fromkeys(sample.labels["le"] for sample in family.samples if "le" in sample.labels)
        yield f"| `{family.name}` | {', '.join(edge if edge == '+Inf' else f'{float(edge):g}' for edge in edges)} |"
