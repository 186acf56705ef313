"""The tables of docs/metrics.md, from what a server exposes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from prometheus_client.core import Metric

from pipeline.front.metrics.collector import StatsCollector
from pipeline.front.metrics.links import NodeFigures, RouterFigures, node_metrics, router_metrics
from pipeline.front.metrics.vllm import in_vllm
from pipeline.front.settings import FrontSettings
from pipeline.stats import Counters, StatsPage, StatsReader

_HEADS: Sequence[str] = ("metric", "type", "labels", "meaning", "in vLLM")
_REPLICA = "replica"


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
    names: dict[str, Any] = {"model_name": "…", "adapters": ("…",)}
    settings = FrontSettings(**names, vocab_size=1, max_length=1, max_prompt=1, max_rows=1, max_queue=1)
    collector = StatsCollector(StatsReader(page), settings, more=_of_links, weights=lambda: [(0, "…")])
    found = {section: list(families) for section, families in collector.sections()}
    page.close()
    return found


def _of_links() -> Iterable[Metric]:
    """Of a router and of a node: no server has both."""
    yield from node_metrics([NodeFigures("…", linked=True, lanes_up=1, links=1, received=0, sent=0)])
    yield from router_metrics(RouterFigures(links=0, requests=0, made=0, refused=0, received=0, sent=0))


def _table(families: Iterable[Metric]) -> str:
    rows = [_row(family) for family in families]
    columns = len(_HEADS) if any(row[-1] for row in rows) else len(_HEADS) - 1
    lines = (_HEADS, ["---"] * columns, *rows)
    return "".join(f"| {' | '.join(cells[:columns])} |\n" for cells in lines)


def _row(family: Metric) -> Sequence[str]:
    name = _exposed_name(family)
    return f"`{name}`", family.type, _labels(family), family.documentation, _in_vllm(family)


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


def _in_vllm(family: Metric) -> str:
    name = in_vllm(family)
    return f"`{name}{'_total' if family.type == 'counter' else ''}`" if name else ""


def _buckets(family: Metric) -> Iterator[str]:
    if family.type == "histogram":
        edges = dict.fromkeys(sample.labels["le"] for sample in family.samples if "le" in sample.labels)
        yield f"| `{family.name}` | {', '.join(edge if edge == '+Inf' else f'{float(edge):g}' for edge in edges)} |"
