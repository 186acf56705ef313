"""The figures as text (a full table for the terminal, a short one in Markdown) and as a picture."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scripts.bench.ipc.plan import SIZES
from scripts.bench.ipc.targets import find, judge
from scripts.bench.ipc.transports import NAMES, transport_class
from scripts.lab.plot import BLUE, GREY, ORANGE, picture
from scripts.lab.table import columns, markdown

Row = dict[str, Any]

BIAS = (
    "What this table is biased towards: one producer and one consumer, both Python, both waiting for nothing but the "
    "next message, a core each, and messages of a size known beforehand. That is what the rings were made for. The "
    "rivals also do what a ring does not: many producers, other machines, any Python object, unbounded queues."
)


def size_text(size: int) -> str:
    for unit, factor in (("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size // factor} {unit}"
    return f"{size} B"


def title(row: Row, *, access: bool = True) -> str:
    name = transport_class(row["transport"]).title
    return f"{name}, {row['access']}" if access and len(transport_class(row["transport"]).accesses) > 1 else name


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value < 10 else f"{value:.1f}"


def _rows(report: Row, mode: str, size: int) -> list[Row]:
    """The raw limit, whose message is one word, stands with the smallest."""
    return [
        row
        for name in NAMES
        for row in find(report, name, mode)
        if row["size_bytes"] == size or (name.startswith("raw") and size == SIZES[0])
    ]


# ---- terminal ------------------------------------------------------------------------------------------------------


def terminal_report(report: Row) -> str:
    parts = [_heading(report), *_latency_tables(report), _stream_table(report), _cpu_table(report)]
    parts.append(columns(*_broadcast_table(report)) if report.get("broadcast") else "")
    parts.append("\n".join(f"skipped {name}: {why}" for name, why in report["skipped"].items()))
    parts.append("Targets\n" + "\n".join(goal.text for goal in judge(report)))
    return "\n\n".join(part for part in parts if part)


def _heading(report: Row) -> str:
    machine = report["machine"]
    return (
        f"{machine['cpu']}, {machine['usable_cores']} cores, Linux {machine['kernel']}, Python {machine['python']}; "
        f"{report['rounds']} rounds, medians; others used {report['cpu_busy_elsewhere_pct']:.1f} % of the machine"
    )


def _latency_tables(report: Row) -> Iterable[str]:
    head = ("one way, µs (half of a round trip)", "p50", "p99", "p99.9", "max", "p50 not pinned", "p99 not pinned")
    groups = [(f"busy, {size_text(size)}", "busy", size) for size in SIZES] + [("peer parked, 64 B", "parked", 64)]
    groups.append(("1 ms cadence, 64 B, default settings, not pinned", "cadence", 64))
    for name, mode, size in groups:
        if rows := [_latency_row(report, row) for row in _rows(report, mode, size)]:
            yield f"{name}\n" + columns(head, rows)


def _latency_row(report: Row, row: Row) -> list[str]:
    same = {key: row[key] for key in ("size_bytes", "access", "batch")}
    loose = (find(report, row["transport"], row["mode"], pinned=False, **same) or [{}])[0]
    cells = [row["p50_us"], row["p99_us"], row["p999_us"], row["max_us"], loose.get("p50_us"), loose.get("p99_us")]
    return [title(row), *map(number, cells)]


def _stream_table(report: Row) -> str:
    wanted: dict[str, dict[int, float]] = {}
    for name in NAMES:
        for mode in ("stream", "stream-batched"):
            for row in find(report, name, mode):
                label = title(row) + (", batched" if mode == "stream-batched" else "")
                wanted.setdefault(label, {})[row["size_bytes"]] = row["msgs_per_s"]
    rows = [[label, *(number(rates.get(size)) for size in SIZES)] for label, rates in wanted.items()]
    return columns(("messages per second, one way", *map(size_text, SIZES)), rows) if rows else ""


def _cpu_table(report: Row) -> str:
    keys = ("idle_leader_pct", "idle_follower_pct", "cadence_leader_pct", "cadence_follower_pct")
    rows = [[title(row, access=False), *(f"{row[key]:.2f}" for key in keys)] for row in report["cpu"]]
    head = ("CPU use, % of one core", "idle, leader", "follower", "1 ms cadence, leader", "follower")
    return columns(head, rows) if rows else ""


def _broadcast_table(report: Row) -> tuple[list[str], list[list[str]]]:
    """Head and rows: what one publish costs."""
    kinds = [(pinned, figure) for pinned in (True, False) for figure in ("awake_us", "parked_us")]
    found = {(row["readers"], row["pinned"]): row for row in report["broadcast"]}
    head = ["broadcast ring, 64 B, one publish, p50, µs", "none parked", "all parked"]
    head += ["not pinned, none parked", "all parked"]
    rows = []
    for readers in sorted({readers for readers, _ in found}):
        cells = [found.get((readers, pinned), {}).get(figure) for pinned, figure in kinds]
        rows.append([f"{readers} reader{'s' if readers > 1 else ''}", *map(number, cells)])
    return head, rows


# ---- Markdown ------------------------------------------------------------------------------------------------------


def markdown_report(report: Row) -> str:
    machine, versions = report["machine"], report["versions"]
    rivals = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "ringserve")
    head = ["one way, Python to Python, µs", "64 B p50", "p99", "p99.9", "64 B peer parked, p50"]
    head += [f"{size_text(size)} p50" for size in SIZES[1:]] + ["64 B messages/s", "idle CPU"]
    table = markdown(head, [cells for name in NAMES for cells in _markdown_rows(report, name)])
    return (
        f"{table}\n\n{machine['cpu']}, {machine['usable_cores']} cores, Linux {machine['kernel']}, Python "
        f"{machine['python']}, {rivals}; {report['date'][:10]}; pinned, medians of {report['rounds']} rounds; the "
        f"reader reads every byte. Others used {report['cpu_busy_elsewhere_pct']:.0f} % of the machine meanwhile."
        f"\n\n{BIAS}" + (f"\n\n{markdown(*_broadcast_table(report))}" if report.get("broadcast") else "")
    )


def _markdown_rows(report: Row, name: str) -> Iterable[list[str]]:
    use: Row = next((row for row in report["cpu"] if row["transport"] == name), {})
    idle = [use[key] for key in ("idle_leader_pct", "idle_follower_pct") if key in use]
    for access in transport_class(name).accesses:
        busy = {row["size_bytes"]: row for row in find(report, name, "busy", access=access)}
        if not busy:
            continue
        small = busy.get(SIZES[0]) or next(iter(busy.values()))
        parked = (find(report, name, "parked", access=access) or [{}])[0]
        rates = [
            row["msgs_per_s"]
            for mode in ("stream", "stream-batched")
            for row in find(report, name, mode, size_bytes=64, access=access)
        ]
        cells = [small["p50_us"], small["p99_us"], small["p999_us"], parked.get("p50_us")]
        cells += [busy[size]["p50_us"] if size in busy else None for size in SIZES[1:]]
        cells += [max(rates, default=None)]
        yield [title(small), *map(number, cells), f"{max(idle):.2f} %" if idle else "-"]


# ---- the picture: latency by transport, one panel per message size -------------------------------------------------


def plot(report: Row, path: Path) -> None:
    """Raises BenchError."""
    panels = [(f"{size_text(size)}, both sides busy", "busy", size) for size in SIZES]
    panels.append(("64 B, receiver asleep", "parked", SIZES[0]))
    groups = [(name, rows) for name, mode, size in panels if (rows := _rows(report, mode, size))]
    heights = [len(rows) + 2 for _, rows in groups]
    size = (10, 0.32 * sum(heights) + 1)
    with picture(path, len(groups), 1, size, height_ratios=heights) as (figure, axes):
        for axis, (name, rows) in zip(axes[:, 0], groups, strict=True):
            _draw(axis, name, rows)
        machine = report["machine"]
        about = f"{machine['cpu']}, {machine['usable_cores']} cores"
        figure.suptitle(f"One-way latency between two Python processes\n{about}", fontsize=12)
        axes[-1, 0].set_xlabel("µs, log scale; bar: p50, whisker: p99, label: p50 / p99")
        figure.tight_layout(rect=(0, 0, 1, 0.99))


def _draw(axis: Any, name: str, rows: list[Row]) -> None:
    places = range(len(rows))
    p50 = [row["p50_us"] for row in rows]
    p99 = [max(row["p99_us"], row["p50_us"]) for row in rows]
    axis.barh(places, p50, color=[_colour(row["transport"]) for row in rows], height=0.7)
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


def _colour(transport: str) -> str:
    if transport.startswith("raw"):
        return GREY
    return BLUE if transport in {"ring", "byte-ring"} else ORANGE
