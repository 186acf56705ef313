"""The promises of the rings, judged from a run's figures. On pinned figures, where there are any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    target: str
    limit: float
    measured: float | None
    unit: str
    at_least: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    @property
    def text(self) -> str:
        if self.measured is None:
            return f"not measured  {self.target}"
        by = abs(self.measured / self.limit - 1) * 100
        side = "above" if self.measured > self.limit else "below"
        word = "met   " if self.met else "MISSED"
        figures = f"{self.measured:,.2f} against {self.limit:,.2f} {self.unit}"
        return f"{word}  {self.target}: {figures} ({by:.0f} % {side}){self.note}"

    def as_row(self) -> Row:
        return {
            "target": self.target,
            "limit": self.limit,
            "measured": self.measured,
            "unit": self.unit,
            "met": self.met,
        }


def judge(report: Row) -> list[Verdict]:
    return [_busy(report), _parked(report), _rate(report), _large(report), _idle(report), _death(report)]


def find(report: Row, transport: str, mode: str, **wanted: object) -> list[Row]:
    """Rows that match; pinned ones, unless asked otherwise or unless there are none."""
    rows = [row for row in report["results"] if (row["transport"], row["mode"]) == (transport, mode)]
    rows = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    if "pinned" in wanted:
        return rows
    return [row for row in rows if row["pinned"]] or rows


def _busy(report: Row) -> Verdict:
    rows = find(report, "ring", "busy", size_bytes=64)
    best = min(rows, key=lambda row: row["p50_us"], default=None)
    note = f", {best['access']}" if best else ""
    return Verdict("one-way p50, 64 B, busy", 1.0, best["p50_us"] if best else None, "µs", note=note)


def _parked(report: Row) -> Verdict:
    ours, raw = find(report, "ring", "parked"), find(report, "raw-futex", "parked")
    name = "wake-up from parked, p50, at most 1.15 of raw C futex"
    if not ours or not raw:
        return Verdict(name, 1.15, None, "µs")
    return Verdict(name, 1.15 * raw[0]["p50_us"], ours[0]["p50_us"], "µs")


def _rate(report: Row) -> Verdict:
    rates = [row["msgs_per_s"] / 1e6 for row in find(report, "ring", "stream-batched", size_bytes=64)]
    return Verdict("messages per second, 64 B, batched", 2.0, max(rates, default=None), "million", at_least=True)


def _large(report: Row) -> Verdict:
    """What is left of a 128 KiB message without writing and reading it, against the same of a 64 B one."""
    name = "128 KiB in place, one way: 64 B plus touching (written and read once)"
    small, large = (find(report, "ring", "parts", size_bytes=size) for size in (64, 131072))
    if not small or not large:
        return Verdict(name, 0, None, "µs")
    touching = _touching(large[0]) - _touching(small[0])
    alone = large[0]["private_fill_us"] + large[0]["private_touch_us"]
    note = f"; touching takes {_touching(large[0]):.1f} µs on data from the other core, {alone:.1f} on private memory"
    return Verdict(name, small[0]["p50_us"] + touching, large[0]["p50_us"], "µs", note=note)


def _touching(row: Row) -> float:
    return float(row["fill_us"] + row["touch_us"])


def _idle(report: Row) -> Verdict:
    use = next((row for row in report["cpu"] if row["transport"] == "ring" and "idle_leader_pct" in row), None)
    worst = use and max(use["idle_leader_pct"], use["idle_follower_pct"])
    return Verdict("CPU use of an idle side", 0.5, worst, "%")


def _death(report: Row) -> Verdict:
    death = report.get("peer_death")
    return Verdict("kill -9 of the other side to PeerDied, at most", 100.0, death and death["max_ms"], "ms")
