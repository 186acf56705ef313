"""The picture of docs/scaling.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from scripts.bench.nodes.cases import CHATS, PROMPTS, Case
from scripts.bench.nodes.fleet import Division
from scripts.bench.nodes.seen import Figures
from scripts.lab.plot import BLUE, GREY, ORANGE, picture

_LIGHT = "#ecd0af"
_COLOURS = {CHATS: BLUE, PROMPTS: ORANGE}
Runs = Iterable[tuple[Case, Figures]]


def draw(found: Runs, file: Path) -> None:
    """Raises BenchError."""
    runs = list(found)
    with picture(file, 2, 2, (11, 7.2)) as (figure, axes):
        _draw_busy(axes[0, 0], runs)
        _draw_first(axes[0, 1], runs)
        _draw_hits(axes[1, 0], runs)
        _draw_waits(axes[1, 1], runs)
        for axis in axes.flat:
            axis.spines[["top", "right"]].set_visible(False)
            if axis.get_legend_handles_labels()[0]:
                axis.legend(frameon=False, fontsize=8)
        figure.tight_layout()


def _line(axis: Any, runs: Runs, x: Callable[[Case], int], y: Callable[[Figures], float], **style: Any) -> None:
    points = [(x(case), y(figures)) for case, figures in runs]
    if points:
        axis.plot(*zip(*points, strict=True), marker="o", markersize=4, **style)


def _of(runs: Runs, part: str, load: str) -> list[tuple[Case, Figures]]:
    return [(case, figures) for case, figures in runs if (case.part, case.load) == (part, load)]


def _nodes(case: Case) -> int:
    return case.fleet.nodes


def _routers(case: Case) -> int:
    return case.fleet.routers


def _draw_busy(axis: Any, runs: Runs) -> None:
    for load, colour in _COLOURS.items():
        _line(axis, _of(runs, "router", load), _nodes, lambda one: 100 * one.busy, color=colour, label=load)
    axis.axhline(100, color=GREY, linewidth=1)
    axis.set(xlabel="nodes before one router", ylim=(0, None))
    axis.set_title("one router's CPU, % of a core", loc="left", fontsize=10)


def _draw_first(axis: Any, runs: Runs) -> None:
    for load, colour in _COLOURS.items():
        own = _of(runs, "nodes", load)
        _line(axis, own, _nodes, lambda one: one.ttft_p99, color=colour, label=f"{load}, p99")
        _line(axis, own, _nodes, lambda one: one.ttft_p50, color=colour, linestyle=":", label=f"{load}, p50")
    numbers = sorted({case.fleet.nodes for case, _ in runs if case.part == "nodes"})
    if numbers:
        axis.set_xscale("log")
        axis.set_xticks(numbers, [str(number) for number in numbers])
        axis.minorticks_off()
    axis.set(xlabel="nodes, with as many routers as they need", ylim=(0, None))
    axis.set_title("ms to the first token", loc="left", fontsize=10)


def _draw_hits(axis: Any, runs: Runs) -> None:
    every = _of(runs, "routers", CHATS)
    for division, colour in zip(Division, (BLUE, ORANGE, GREY), strict=True):
        own = [one for one in every if one[0].fleet.routers == 1 or one[0].fleet.division is division]
        _line(axis, own, _routers, lambda one: 100 * one.hits, color=colour, label=division.value)
    axis.set(xlabel="routers", ylim=(50, 100))
    axis.set_title("chats: % of prompts' tokens that were cached", loc="left", fontsize=10)


def _draw_waits(axis: Any, runs: Runs) -> None:
    names = ("gap p99", "gap p99.9", "moved, p50", "moved, p99")
    own = [one for one in runs if one[0].part == "losses"]
    for place, ((case, figures), colour) in enumerate(zip(own, (GREY, BLUE, _LIGHT, ORANGE), strict=False)):
        values = (figures.gap_p99, figures.gap_p999, figures.wait_p50, figures.wait_p99)[: 4 if place else 2]
        at = [number + 0.2 * (place - 1.5) for number in range(len(values))]
        axis.bar(at, values, 0.19, color=colour, label=case.losses)
        for x, value in zip(at, values, strict=True):
            axis.text(x, value, f"{value:,.0f}", ha="center", va="bottom", fontsize=6)
    axis.set_yscale("log")
    axis.set_xticks(range(len(names)), names, fontsize=8)
    axis.set_title("ms between two tokens, when nodes are lost", loc="left", fontsize=10)
