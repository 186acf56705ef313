"""Results as text."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]

_AFTER = ("publish", "sample", "feedback", "detokenize and send", "schedule")


def header(machine: Row) -> str:
    return (
        f"{machine['cpu']}, {machine['usable_cores']} usable cores, Python {machine['python']}; "
        f"load by others: {machine['others_cpu_percent']:.0f} % of one core"
    )


def steps_table(told: Row) -> str:
    rows = told["results"]
    return "\n".join(
        [
            f"Host overhead per step, milliseconds. The device: {told['device']}; the hosts' work is real. "
            f"{told['rounds']} rounds of {told['seconds']:g} s, medians over rounds",
            "",
            f"{'variant':<12}{'batch':>6}{'ITL p50':>10}{'p99':>9}{'bare p50':>10}{'p99':>9}"
            f"{'overhead p50':>14}{'p99':>9}{'replaced':>10}",
            *map(_latency_line, rows),
            "",
            "Where it goes, means in microseconds: wait + launch + late = overhead; the rest happens meanwhile.",
            f"{'variant':<12}{'batch':>6}{'wait':>8}{'launch':>8}{'late':>8}{'residual':>10}{'of ITL':>8}  |"
            + "".join(f"{name.split()[0]:>12}" for name in _AFTER),
            *map(_parts_line, rows),
            "",
            "CPU by stage, microseconds per token (percent of one core)",
            *map(_cpu_line, rows),
        ]
    )


def _latency_line(row: Row) -> str:
    ratio = f"{row['ratio_to_replaced']:9.1f}x" if row["ratio_to_replaced"] is not None else f"{'-':>10}"
    return (
        f"{row['variant']:<12}{row['batch']:>6}{row['itl_p50_ms']:>10.3f}{row['itl_p99_ms']:>9.3f}"
        f"{row['bare_p50_ms']:>10.3f}{row['bare_p99_ms']:>9.3f}{row['overhead_p50_ms']:>14.3f}"
        f"{row['overhead_p99_ms']:>9.3f}{ratio}"
    )


def _parts_line(row: Row) -> str:
    parts, itl_us = row["parts"], 1e3 * row["itl_p50_ms"]
    if not parts:
        return f"{row['variant']:<12}{row['batch']:>6}{'(has no stamps)':>24}"
    after = "".join(f"{parts[name]['mean_us']:>12.1f}" if name in parts else f"{'-':>12}" for name in _AFTER)
    return (
        f"{row['variant']:<12}{row['batch']:>6}{parts['wait']['mean_us']:>8.1f}{parts['launch']['mean_us']:>8.1f}"
        f"{row['late_us']:>8.1f}{row['residual_us']:>10.1f}{100 * row['residual_us'] / itl_us:>7.2f}%  |{after}"
    )


def _cpu_line(row: Row) -> str:
    stages = "  ".join(
        f"{stage} {us:.1f} ({row['cpu_percent'][stage]:.1f} %)" for stage, us in row["cpu_us_per_token"].items()
    )
    return f"{row['variant']:<12}{row['batch']:>6}  {stages}"


def plain_table(told: Row) -> str:
    """A title, and rows of named figures."""
    rows = told["results"]
    if not rows:
        return str(told["title"])
    names = list(rows[0])
    cells = [[_cell(row[name]) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
    lines = [names, *cells]
    return "\n".join(
        [
            told["title"],
            "",
            *("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in lines),
        ]
    )


def _cell(value: object) -> str:
    return f"{value:,.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def goals_table(goals: list[Row]) -> str:
    return "\n".join(_verdict(goal) for goal in goals)


def _verdict(goal: Row) -> str:
    bound = "at least" if goal["at_least"] else "at most"
    verdict = "met" if goal["met"] else "MISSED"
    return f"{verdict:>7}: {goal['what']}: {goal['measured']:g} {goal['unit']} ({bound} {goal['goal']:g})"
