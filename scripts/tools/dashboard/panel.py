"""A panel, and the expressions that come again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

_WHERE = 'instance=~"$instance", replica=~"$replica|"'  # what is of no replica is shown, whichever is chosen
_RATE = "[$__rate_interval]"

Target = tuple[str, str]
"""An expression in PromQL, and what its lines are called."""


@dataclass(frozen=True, slots=True)
class Panel:
    """`unit` is Grafana's. `alarm`: from this value on it is red."""

    title: str
    unit: str
    targets: Sequence[Target]
    meaning: str
    kind: str = "timeseries"  # or "stat", "heatmap"
    width: int = 8  # of 24
    height: int = 8
    stacked: bool = False
    highest: float | None = None
    alarm: float | None = None


def now(metric: str, by: str = "") -> str:
    """The sum of a gauge over all servers."""
    return f"{_sum(by)}(ringserve_{metric}{{{_WHERE}}})"


def highest(metric: str, by: str = "") -> str:
    return f"max{f' by ({by})' if by else ''} (ringserve_{metric}{{{_WHERE}}})"


def rate(metric: str, by: str = "", **where: str) -> str:
    """Per second, of what has these values of labels."""
    chosen = ", ".join([_WHERE, *(f'{label}="{value}"' for label, value in where.items())])
    return f"{_sum(by)}(rate(ringserve_{metric}{{{chosen}}}{_RATE}))"


def mean(histogram: str, by: str = "", **where: str) -> str:
    return f"{rate(f'{histogram}_sum', by, **where)} / {rate(f'{histogram}_count', by, **where)}"


def quantile(share: float, histogram: str) -> str:
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', 'le')})"


def spread(histogram: str) -> list[Target]:
    """Mean and quantiles of a histogram."""
    return [(mean(histogram), "mean"), *((quantile(q, histogram), f"p{100 * q:.0f}") for q in (0.5, 0.95, 0.99))]


def each(function: Callable[..., str], metric: str, label: str, **where: str) -> list[Target]:
    """A line for every value of a label."""
    return [(function(metric, label, **where), f"{{{{{label}}}}}")]


def _sum(by: str) -> str:
    return f"sum by ({by}) " if by else "sum"
