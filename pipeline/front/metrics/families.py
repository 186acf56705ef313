"""Short functions that make metric families."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from pipeline.stats import HistogramSnapshot

Labelled = Iterable[tuple[tuple[str, ...], float]]
"""Values, each after the values of its labels."""


def counter(name: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(f"ringserve_{name}", meaning, value=value)


def counters(name: str, meaning: str, labels: tuple[str, ...], values: Labelled) -> Metric:
    family = CounterMetricFamily(f"ringserve_{name}", meaning, labels=labels)
    for which, value in values:
        family.add_metric(which, value)
    return family


def gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(f"ringserve_{name}", meaning, value=value)


def gauges(name: str, meaning: str, labels: tuple[str, ...], values: Labelled) -> Metric:
    family = GaugeMetricFamily(f"ringserve_{name}", meaning, labels=labels)
    for which, value in values:
        family.add_metric(which, value)
    return family


def histogram(name: str, meaning: str, snapshot: HistogramSnapshot) -> Metric:
    return histograms(name, meaning, (), [((), snapshot)])


def histograms(
    name: str, meaning: str, labels: tuple[str, ...], snapshots: Iterable[tuple[tuple[str, ...], HistogramSnapshot]]
) -> Metric:
    family = HistogramMetricFamily(f"ringserve_{name}", meaning, labels=labels)
    for which, snapshot in snapshots:
        total, buckets = 0, []
        for edge, count in zip((*map(str, snapshot.edges), "+Inf"), snapshot.counts, strict=True):
            total += count
            buckets.append((edge, float(total)))
        family.add_metric(which, buckets, snapshot.sum)
    return family
