"""Results as text, and where a token's time goes as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scripts.bench.overhead.figures import Row
from scripts.lab.plot import BLUE, GREY, ORANGE, picture
from scripts.lab.table import columns

_AFTER = ("publish", "sample", "feedback", "detokenize and send", "schedule")


def table(told: Row) -> str:
    """Of a section."""
    if "device" in told:
        return _steps_table(told)
    rows = told["results"]
    return f"{told['title']}\n\n{columns(list(rows[0]), [list(row.values()) for row in rows], left=0)}"


def _steps_table(told: Row) -> str:
    rows = told["results"]
    latency = ("variant", "batch", "ITL p50", "p99", "bare p50", "p99", "overhead p50", "p99", "replaced")
    parts = ("variant", "batch", "wait", "launch", "late", "residual", "of ITL", "|", *(n.split()[0] for n in _AFTER))
    return "\n".join(
        [
            f"Host overhead per step, milliseconds. The device: {told['device']}; the hosts' work is real. "
            f"{told['rounds']} rounds of {told['seconds']:g} s, medians over rounds",
            "",
            columns(latency, [_latency_line(row) for row in rows]),
            "",
            "Where it goes, means in microseconds: wait + launch + late = overhead; the rest happens meanwhile.",
            columns(parts, [_parts_line(row) for row in rows if row["parts"]]),
            *(f"{name} has no stamps" for name in sorted({row["variant"] for row in rows if not row["parts"]})),
            "",
            "CPU by stage, microseconds per token (percent of one core)",
            *map(_cpu_line, rows),
        ]
    )


def _latency_line(row: Row) -> list[str]:
    names = ("itl_p50", "itl_p99", "bare_p50", "bare_p99", "overhead_p50", "overhead_p99")
    ratio = row["ratio_to_replaced"]
    times = [f"{row[f'{name}_ms']:.3f}" for name in names]
    return [row["variant"], str(row["batch"]), *times, "-" if ratio is None else f"{ratio:.1f}x"]


def _parts_line(row: Row) -> list[str]:
    parts, late, residual = row["parts"], row["late_us"], row["residual_us"]
    before = [f"{us:.1f}" for us in (parts["wait"]["mean_us"], parts["launch"]["mean_us"], late, residual)]
    share = f"{residual / row['itl_p50_ms'] / 10:.2f}%" if row["itl_p50_ms"] else "-"  # tokens that came in pairs
    after = [f"{parts[name]['mean_us']:.1f}" if name in parts else "-" for name in _AFTER]
    return [row["variant"], str(row["batch"]), *before, share, "|", *after]


def _cpu_line(row: Row) -> str:
    stages = "  ".join(
        f"{stage} {us:.1f} ({row['cpu_percent'][stage]:.1f} %)" for stage, us in row["cpu_us_per_token"].items()
    )
    return f"{row['variant']:<12}{row['batch']:>6}  {stages}"


def header(machine: Row) -> str:
    return (
        f"{machine['cpu']}, {machine['usable_cores']} usable cores, Python {machine['python']}; "
        f"load by others: {machine['others_cpu_percent']:.0f} % of one core"
    )


# ---- stacked bars: recorded of llm-serving, measured here of RingServe ---------------------------------------------

Bar = tuple[str, dict[str, float]]  # label, and milliseconds by part

RECORDED: tuple[Bar, ...] = (
    (
        "llm-serving\nrecorded on an Ascend 910B4",
        {"model": 22.5, "prepare": 12.0, "sample": 3.3, "hand over": 1.5, "detokenize, answer": 0.55},
    ),
    ("llm-serving, tuned by hand\nrecorded on an Ascend 910B4", {"model": 22.5, "not told apart": 4.5}),
)
"""Llama-2-7B at batch 1. Ranges are shown by their middle; tuned: no debug logging, no concatenation, 27 ms."""

_MEASURED = {
    "replaced": "llm-serving's data path, rebuilt small",
    "plain": "RingServe without overlap",
    "ringserve": "RingServe",
}
_COLOURS = {
    "model": GREY,
    "prepare": ORANGE,
    "sample": "#b5524f",
    "hand over": "#7a5c99",
    "detokenize, answer": "#5b8c5a",
    "not told apart": "#c9b458",
    "overhead": BLUE,
}


def draw(told: Row, path: Path) -> None:
    """`told`: the section of steps, with the default variant at batch 1. Raises BenchError."""
    bars = [*RECORDED, *_measured(told)]
    with picture(path, 1, 2, (11, 0.75 * len(bars) + 1.6), width_ratios=(3, 2)) as (figure, axes):
        whole, zoom = axes[0]
        for axis in (whole, zoom):
            _draw(axis, bars)
        whole.set_yticks(range(len(bars)), [label for label, _ in bars], fontsize=9)
        whole.set_xlabel("ms per token at batch 1")
        whole.set_title("Where a token's time goes", loc="left", fontsize=12)
        zoom.set_yticks([])
        zoom.set_xlim(22.3, 25.2)
        zoom.set_title("the same from 22.3 ms on", loc="left", fontsize=10)
        handles = dict(zip(*reversed(whole.get_legend_handles_labels()), strict=True))  # each part once
        shown = [name for name in _COLOURS if name in handles]
        figure.legend([handles[name] for name in shown], shown, loc="lower center", ncols=len(shown), fontsize=8,
                      frameon=False)  # fmt: skip
        figure.tight_layout(rect=(0, 0.07, 1, 1))


def _measured(told: Row) -> list[Bar]:
    rows = {row["variant"]: row for row in told["results"] if row["batch"] == 1}
    return [
        (
            f"{name}\nmeasured here, device emulated",
            {"model": rows[variant]["bare_p50_ms"], "overhead": max(0.0, rows[variant]["overhead_p50_ms"])},
        )
        for variant, name in _MEASURED.items()
        if variant in rows
    ]


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
