"""Latency by transport, one panel per message size, as a PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scripts.bench.ipc.plan import SIZES
from scripts.bench.ipc.report import number, size_text, title
from scripts.bench.ipc.targets import find
from scripts.bench.ipc.transports import NAMES

Row = dict[str, Any]

_OURS, _RAW, _OTHERS = "#1f6f8b", "#9aa5ad", "#d08c47"


def plot(report: Row, path: Path) -> None:
    """Raises ImportError where matplotlib is missing."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    panels = [(f"{size_text(size)}, both sides busy", "busy", size) for size in SIZES]
    panels.append(("64 B, receiver asleep", "parked", SIZES[0]))
    groups = [(name, rows) for name, mode, size in panels if (rows := _panel_rows(report, mode, size))]
    heights = [len(rows) + 2 for _, rows in groups]
    figure, axes = pyplot.subplots(
        len(groups), 1, figsize=(10, 0.32 * sum(heights) + 1), height_ratios=heights, squeeze=False
    )
    for axis, (name, rows) in zip(axes[:, 0], groups, strict=True):
        _draw(axis, name, rows)
    machine = report["machine"]
    figure.suptitle(
        f"One-way latency between two Python processes\n{machine['cpu']}, {machine['usable_cores']} cores",
        fontsize=12,
    )
    axes[-1, 0].set_xlabel("µs, log scale; bar: p50, whisker: p99, label: p50 / p99")
    figure.tight_layout(rect=(0, 0, 1, 0.99))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _panel_rows(report: Row, mode: str, size: int) -> list[Row]:
    rows = [row for name in NAMES for row in find(report, name, mode)]
    return [
        row for row in rows if row["size_bytes"] == size or (row["transport"].startswith("raw") and size == SIZES[0])
    ]


def _draw(axis: Any, name: str, rows: list[Row]) -> None:
    places = range(len(rows))
    p50 = [row["p50_us"] for row in rows]
    p99 = [max(row["p99_us"], row["p50_us"]) for row in rows]
    axis.barh(places, p50, color=[_colour(row) for row in rows], height=0.7)
    axis.hlines(places, p50, p99, color="#444444", linewidth=1)
    axis.plot(p99, places, "|", color="#444444", markersize=8)
    for place, (middle, high) in enumerate(zip(p50, p99, strict=True)):
        axis.text(high * 1.12, place, f"{number(middle)} / {number(high)}", va="center", fontsize=8)
    axis.set_xscale("log")
    axis.set_xlim(min(p50) / 3, max(p99) * 8)
    axis.set_yticks(places, [title(row) for row in rows], fontsize=9)
    axis.invert_yaxis()
    axis.set_title(name, fontsize=10, loc="left")
    axis.grid(axis="x", which="major", linewidth=0.4)
    axis.spines[["top", "right"]].set_visible(False)


def _colour(row: Row) -> str:
    if row["transport"].startswith("raw"):
        return _RAW
    return _OURS if row["transport"] in {"ring", "byte-ring"} else _OTHERS
