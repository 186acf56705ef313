"""Short functions that make metric families."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from pipeline.stats import HistogramSnapshot

Labels = Mapping[str, str]

Labelled = Iterable[tuple[Labels, float]]
"""Values with their labels, which need not be the same ones throughout a family."""

_NONE: Labels = {}


def counter(name: str, meaning: str, value: float) -> Metric:
    return counters(name, meaning, [(_NONE, value)])


def counters(name: str, meaning: str, values: Labelled) -> Metric:
    family = CounterMetricFamily(f"ringserve_{name}", meaning)
    for labels, value in values:
        family.add_sample(f"{family.name}_total", {**labels}, value)
    return family


def gauge(name: str, meaning: str, value: float) -> Metric:
    return gauges(name, meaning, [(_NONE, value)])


def gauges(name: str, meaning: str, values: Labelled) -> Metric:
    family = GaugeMetricFamily(f"ringserve_{name}", meaning)
    for labels, value in values:
        family.add_sample(family.name, {**labels}, value)
    return family


def histogram(name: str, meaning: str, snapshot: HistogramSnapshot) -> Metric:
    return histograms(name, meaning, [(_NONE, snapshot)])


def histograms(name: str, meaning: str, snapshots: Iterable[tuple[Labels, HistogramSnapshot]]) -> Metric:
    family = HistogramMetricFamily(f"ringserve_{name}", meaning)
    for labels, snapshot in snapshots:
        total = 0
        for edge, count in zip((*map(str, snapshot.edges), "+Inf"), snapshot.counts, strict=True):
            total += count
            family.add_sample(f"{family.name}_bucket", {**labels, "le": edge}, total)
        family.add_sample(f"{family.name}_count", {**labels}, total)
        family.add_sample(f"{family.name}_sum", {**labels}, snapshot.sum)
    return family
