"""Where a token's time goes, as stacked bars: recorded of llm-serving, measured here of RingServe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Row = dict[str, Any]
Bar = tuple[str, dict[str, float]]  # label, and milliseconds by part

RECORDED: tuple[Bar, ...] = (
    (
        "llm-serving\nrecorded on an Ascend 910B4",
        {"model": 22.5, "prepare": 12.0, "sample": 3.3, "hand over": 1.5, "detokenize, answer": 0.55},
    ),
    ("llm-serving, tuned by hand\nrecorded on an Ascend 910B4", {"model": 22.5, "not told apart": 4.5}),
)
"""Llama-2-7B at batch 1. Ranges are shown by their middle; tuned: no debug logging, no concatenation, 27 ms."""

_COLOURS = {
    "model": "#9aa5ad",
    "prepare": "#d08c47",
    "sample": "#b5524f",
    "hand over": "#7a5c99",
    "detokenize, answer": "#5b8c5a",
    "not told apart": "#c9b458",
    "overhead": "#1f6f8b",
}


def draw(told: Row, path: Path) -> None:
    """`told`: the section of steps, with the default variant at batch 1. Raises ImportError without matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    bars = [*RECORDED, *_measured(told)]
    figure, (whole, zoom) = pyplot.subplots(1, 2, figsize=(11, 0.75 * len(bars) + 1.6), width_ratios=(3, 2))
    for axis in (whole, zoom):
        _draw(axis, bars)
    whole.set_yticks(range(len(bars)), [label for label, _ in bars], fontsize=9)
    whole.set_xlabel("ms per token at batch 1")
    whole.set_title("Where a token's time goes", loc="left", fontsize=12)
    zoom.set_yticks([])
    zoom.set_xlim(22.3, 25.2)
    zoom.set_title("the same from 22.3 ms on", loc="left", fontsize=10)
    handles, labels = _legend([whole])
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _measured(told: Row) -> list[Bar]:
    names = {
        "replaced": "llm-serving's data path, rebuilt small",
        "plain": "RingServe without overlap",
        "ringserve": "RingServe",
    }
    rows = {row["variant"]: row for row in told["results"] if row["batch"] == 1}
    return [
        (f"{name}\nmeasured here, device emulated", _parts(rows[variant]))
        for variant, name in names.items()
        if variant in rows
    ]


def _parts(row: Row) -> dict[str, float]:
    return {"model": row["bare_p50_ms"], "overhead": max(0.0, row["overhead_p50_ms"])}


def _draw(axis: Any, bars: list[Bar]) -> None:
    for place, (_, parts) in enumerate(bars):
        left = 0.0
        for name, width in parts.items():
            axis.barh(place, width, left=left, color=_COLOURS[name], height=0.62, label=name)
            left += width
        axis.text(left + 0.03, place, f" {left:.2f}", va="center", fontsize=9, clip_on=True)
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.12)


def _legend(axes: list[Any]) -> tuple[list[Any], list[str]]:
    """Each part once."""
    handles, labels = axes[0].get_legend_handles_labels()
    first = {label: handle for handle, label in reversed(list(zip(handles, labels, strict=True)))}
    names = [name for name in _COLOURS if name in first]
    return [first[name] for name in names], names
