"""Short functions that make metric families. Labels need not be the same ones throughout a family."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from pipeline.stats import HistogramSnapshot

Labels = Mapping[str, str]
Labelled = Iterable[tuple[Labels, float]]


def counter(name: str, meaning: str, values: Labelled | float) -> Metric:
    family = CounterMetricFamily(f"ringserve_{name}", meaning)
    return _filled(family, f"{family.name}_total", values)


def gauge(name: str, meaning: str, values: Labelled | float) -> Metric:
    family = GaugeMetricFamily(f"ringserve_{name}", meaning)
    return _filled(family, family.name, values)


def _filled(family: Metric, name: str, values: Labelled | float) -> Metric:
    for labels, value in [({}, values)] if isinstance(values, int | float) else values:
        family.add_sample(name, {**labels}, value)
    return family


def histogram(name: str, meaning: str, snapshots: Iterable[tuple[Labels, HistogramSnapshot]]) -> Metric:
    family = HistogramMetricFamily(f"ringserve_{name}", meaning)
    for labels, snapshot in snapshots:
        total = 0
        for edge, count in zip((*map(str, snapshot.edges), "+Inf"), snapshot.counts, strict=True):
            total += count
            family.add_sample(f"{family.name}_bucket", {**labels, "le": edge}, total)
        family.add_sample(f"{family.name}_count", {**labels}, total)
        family.add_sample(f"{family.name}_sum", {**labels}, snapshot.sum)
    return family
