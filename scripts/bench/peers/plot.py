"""The picture: a column for each width of weights; throughput, time between tokens, time to the first one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.bench.peers.loads import TTFT
from scripts.bench.peers.peers import WIDTHS
from scripts.lab.plot import BLUE, GREY, ORANGE, picture

_COLOURS = {"ringserve-openvino": BLUE, "ringserve-mindspore": "#8cc0d0", "llama.cpp": ORANGE, "vllm": GREY}
_GENAI = "#6a8f4e"


def draw(told: dict[str, Any], file: Path) -> None:
    """Raises BenchError where matplotlib is missing, or the file can't be written."""
    by_width = {width: [row for row in told["servers"] if row["width"] == width] for width in WIDTHS}
    columns = [(width, rows) for width, rows in by_width.items() if rows]
    with picture(file, 3, max(len(columns), 1), (4.4 * max(len(columns), 1), 10.5)) as (figure, axes):
        for at, (width, rows) in enumerate(columns):
            _draw_throughput(axes[0, at], width, rows, told["streams"])
            _draw_latency(axes[1, at], rows, told["streams"])
            _draw_first_token(axes[2, at], rows, told["loads"][-1]["prompt_tokens"])
        size = f"random Llama of {told['parameters'] / 1e6:,.0f} million parameters"
        figure.suptitle(f"{size}, {told['machine']['usable_cores']} CPUs, rounds: {told['rounds']}")
        figure.tight_layout(rect=(0, 0, 1, 0.98))


def _colour(name: str) -> str:
    return next((colour for prefix, colour in _COLOURS.items() if name.startswith(prefix)), _GENAI)


def _draw_throughput(axis: Any, width: str, rows: Sequence[dict[str, Any]], streams: Sequence[int]) -> None:
    for row in rows:
        values = [row["loads"][str(number)]["tokens_per_s"] for number in streams]
        axis.plot(streams, values, marker="o", color=_colour(row["name"]), label=row["name"])
    _scales(axis, f"{width}: output tokens per second", streams)
    axis.legend(fontsize=8)


def _draw_latency(axis: Any, rows: Sequence[dict[str, Any]], streams: Sequence[int]) -> None:
    for row in rows:
        for figure, style in (("itl_p50_ms", "-"), ("itl_p99_ms", ":")):
            values = [row["loads"][str(number)][figure] for number in streams]
            axis.plot(streams, values, style, marker=".", color=_colour(row["name"]))
    _scales(axis, "ms between tokens: p50, p99 dotted", streams)


def _draw_first_token(axis: Any, rows: Sequence[dict[str, Any]], tokens: int) -> None:
    values = [row["loads"][TTFT]["ttft_ms"] for row in rows]
    bars = axis.barh([row["name"] for row in rows], values, color=[_colour(row["name"]) for row in rows])
    axis.bar_label(bars, fmt="%.0f", fontsize=8, padding=2)
    axis.invert_yaxis()
    axis.tick_params(labelsize=8)
    axis.margins(x=0.15)
    axis.set_title(f"ms to the first token after {tokens}", fontsize=10)


def _scales(axis: Any, title: str, streams: Sequence[int]) -> None:
    from matplotlib.ticker import LogLocator

    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(streams, [str(number) for number in streams])
    axis.minorticks_off()
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_xlabel("streams", fontsize=8)
    axis.set_title(title, fontsize=10)
    axis.grid(visible=True, alpha=0.3)
