"""The promises of the rings, judged from a run's figures. On pinned figures, where there are any."""

from __future__ import annotations

from typing import Any

from scripts.lab.goals import Goal

Row = dict[str, Any]


def judge(report: Row) -> list[Goal]:
    lone = (_busy(report), _parked(report), _rate(report), _large(report), _idle(report), _death(report))
    return [*lone, _readers(report), _parked_readers(report)]


def as_row(goal: Goal) -> Row:
    """As JSON has it."""
    told = goal.told()
    return {"target": goal.what, "limit": goal.goal, **{name: told[name] for name in ("measured", "unit", "met")}}


def find(report: Row, transport: str, mode: str, **wanted: object) -> list[Row]:
    """Rows that match; pinned ones, unless asked otherwise or unless there are none."""
    wanted |= {"transport": transport, "mode": mode}
    rows = [row for row in report["results"] if all(row[key] == value for key, value in wanted.items())]
    if "pinned" in wanted:
        return rows
    return [row for row in rows if row["pinned"]] or rows


def _busy(report: Row) -> Goal:
    rows = find(report, "ring", "busy", size_bytes=64)
    best = min(rows, key=lambda row: row["p50_us"], default=None)
    note = f", {best['access']}" if best else ""
    return Goal("one-way p50, 64 B, busy", best["p50_us"] if best else None, 1.0, "µs", note=note)


def _parked(report: Row) -> Goal:
    ours, raw = find(report, "ring", "parked"), find(report, "raw-futex", "parked")
    name = "wake-up from parked, p50, at most 1.15 of raw C futex"
    if not ours or not raw:
        return Goal(name, None, 1.15, "µs")
    return Goal(name, ours[0]["p50_us"], 1.15 * raw[0]["p50_us"], "µs")


def _rate(report: Row) -> Goal:
    rates = [row["msgs_per_s"] / 1e6 for row in find(report, "ring", "stream-batched", size_bytes=64)]
    return Goal("messages per second, 64 B, batched", max(rates, default=None), 2.0, "million", at_least=True)


def _large(report: Row) -> Goal:
    """What is left of a 128 KiB message without writing and reading it, against the same of a 64 B one."""
    name = "128 KiB in place, one way: 64 B plus touching (written and read once)"
    small, large = (find(report, "ring", "parts", size_bytes=size) for size in (64, 131072))
    if not small or not large:
        return Goal(name, None, 0, "µs")
    before, after = (float(rows[0]["fill_us"] + rows[0]["touch_us"]) for rows in (small, large))
    alone = large[0]["private_fill_us"] + large[0]["private_touch_us"]
    note = f"; touching takes {after:.1f} µs on data from the other core, {alone:.1f} on private memory"
    return Goal(name, large[0]["p50_us"], small[0]["p50_us"] + after - before, "µs", note=note)


def _idle(report: Row) -> Goal:
    use = next((row for row in report["cpu"] if row["transport"] == "ring" and "idle_leader_pct" in row), None)
    worst = use and max(use["idle_leader_pct"], use["idle_follower_pct"])
    return Goal("CPU use of an idle side", worst, 0.5, "%")


def _death(report: Row) -> Goal:
    death = report.get("peer_death")
    return Goal("kill -9 of the other side to PeerDied, at most", death and death["max_ms"], 100.0, "ms")


def _extra_us(report: Row, figure: str) -> tuple[float, int] | None:
    """What the readers of a broadcast ring beyond the first cost its producer, and how many they are."""
    rows = report.get("broadcast") or []
    pinned = any(row["pinned"] for row in rows)
    found = {row["readers"]: row[figure] for row in rows if row["pinned"] == pinned}
    if len(found) < 2:
        return None
    return found[max(found)] - found[min(found)], max(found) - min(found)


def _readers(report: Row) -> Goal:
    extra = _extra_us(report, "awake_us")
    return Goal("publish to 8 readers, none parked, more than to one", extra and extra[0], 1.0, "µs")


def _parked_readers(report: Row) -> Goal:
    extra = _extra_us(report, "parked_us")
    return Goal("publish, more per parked reader", extra and extra[0] / extra[1], 3.0, "µs")
