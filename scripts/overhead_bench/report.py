"""What came of it: figures, tables, and the judgement against the targets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from overhead_bench.measure import Cell, Plan, Results
from overhead_bench.variants import DEFAULT, REPLACED

TARGETS_MS = {1: 0.3, 32: 1.0}
"""Host overhead per step, median, by batch: the aim of this benchmark's issue."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one variant at one batch: medians over rounds of each round's percentile. Milliseconds."""

    variant: str
    batch: int
    rounds: int
    tokens: int
    itl_p50_ms: float
    itl_p99_ms: float
    bare_p50_ms: float
    overhead_p50_ms: float
    overhead_p99_ms: float  # 99th percentile of the inter-token latency, less the median of the bare step
    ratio_to_replaced: float | None  # replaced path's overhead over this one's
    cpu_percent: dict[str, float]
    parts_us: dict[str, float]


@dataclass(frozen=True, slots=True)
class Judgement:
    """Of the default configuration."""

    batch: int
    target_ms: float
    measured_ms: float
    met: bool


def figures(results: Results, plan: Plan) -> list[Figures]:
    every = [_figures(variant.name, batch, results) for variant in plan.variants for batch in plan.batches]
    replaced = {f.batch: f.overhead_p50_ms for f in every if f.variant == REPLACED}
    return [_with_ratio(f, replaced.get(f.batch)) for f in every]


def _figures(variant: str, batch: int, results: Results) -> Figures:
    cells = results.cells[variant, batch]
    itl = np.array([np.percentile(cell.itl_ms, [50, 99]) for cell in cells])
    bare = np.array([np.median(cell.bare_ms) for cell in cells])
    over = itl - bare[:, None]
    (itl50, itl99), (over50, over99) = np.median(itl, axis=0), np.median(over, axis=0)
    tokens = sum(cell.itl_ms.size for cell in cells)
    cpu, parts = _means([cell.cpu_percent for cell in cells]), _means([cell.parts_us for cell in cells])
    return Figures(
        variant=variant,
        batch=batch,
        rounds=len(cells),
        tokens=tokens,
        itl_p50_ms=_ms(itl50),
        itl_p99_ms=_ms(itl99),
        bare_p50_ms=_ms(np.median(bare)),
        overhead_p50_ms=_ms(over50),
        overhead_p99_ms=_ms(over99),
        ratio_to_replaced=None,
        cpu_percent=cpu,
        parts_us=parts,
    )


def _ms(value: float | np.floating[Any]) -> float:
    return round(float(value), 4)


def _means(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(float(np.median([values[name] for values in rounds])), 2) for name in rounds[0]}


def _with_ratio(row: Figures, replaced_ms: float | None) -> Figures:
    if replaced_ms is None or row.overhead_p50_ms <= 0:
        return row
    return Figures(**asdict(row) | {"ratio_to_replaced": round(replaced_ms / row.overhead_p50_ms, 1)})


def judge(rows: list[Figures]) -> list[Judgement]:
    own = {row.batch: row.overhead_p50_ms for row in rows if row.variant == DEFAULT}
    return [
        Judgement(batch, target, own[batch], own[batch] <= target)
        for batch, target in TARGETS_MS.items()
        if batch in own
    ]


def report(results: Results, plan: Plan, machine: dict[str, Any]) -> dict[str, Any]:
    """As JSON has it."""
    rows = figures(results, plan)
    return {
        "device": f"emulated, {plan.step_ms} ms per step at every batch",
        "machine": machine,
        "step_ms": plan.step_ms,
        "seconds": plan.seconds,
        "rounds": plan.rounds,
        "overrides": list(plan.overrides),
        "results": [asdict(row) for row in rows],
        "targets": [asdict(judgement) for judgement in judge(rows)],
    }


# ---- text --------------------------------------------------------------------------------------------------------

_WIDTHS = {"ITL p50": 10, "p99": 9, "bare p50": 10, "overhead p50": 14, " p99": 9, "replaced": 10}
_HEAD = f"{'variant':<18}{'batch':>6}" + "".join(f"{name:>{width}}" for name, width in _WIDTHS.items())
_PARTS = ("schedule", "wait_for_descriptor", "launch", "publish", "sample", "feedback", "front")


def table(told: dict[str, Any]) -> str:
    machine = told["machine"]
    lines = [
        f"Host overhead per step, milliseconds. The device is {told['device']}; the hosts' work is real.",
        f"{machine['cpu']}, {machine['usable_cores']} usable cores, Python {machine['python']}; load by others: "
        f"{machine['others_cpu_percent']:.0f} % of one core; {told['rounds']} rounds, medians over rounds",
        "",
        _HEAD,
        *(_line(row) for row in told["results"]),
        "",
        "the same, by part of a step (means, microseconds; CPU in percent of one core)",
        f"{'variant':<18}{'batch':>6}" + "".join(f"{_short(part):>11}" for part in _PARTS) + "   CPU by stage",
        *(_split(row) for row in told["results"]),
        "",
        *(_verdict(judgement) for judgement in told["targets"]),
    ]
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    ratio = f"{row['ratio_to_replaced']:9.1f}x" if row["ratio_to_replaced"] is not None else f"{'-':>10}"
    return (
        f"{row['variant']:<18}{row['batch']:>6}{row['itl_p50_ms']:>10.3f}{row['itl_p99_ms']:>9.3f}"
        f"{row['bare_p50_ms']:>10.3f}{row['overhead_p50_ms']:>14.3f}{row['overhead_p99_ms']:>9.3f}{ratio}"
    )


def _short(part: str) -> str:
    return part.replace("wait_for_descriptor", "wait")


def _split(row: dict[str, Any]) -> str:
    parts = "".join(f"{row['parts_us'][part]:>11.1f}" if part in row["parts_us"] else f"{'-':>11}" for part in _PARTS)
    cpu = "  ".join(f"{stage} {percent:.1f}" for stage, percent in row["cpu_percent"].items())
    return f"{row['variant']:<18}{row['batch']:>6}{parts}   {cpu}"


def _verdict(judgement: dict[str, Any]) -> str:
    target, measured = judgement["target_ms"], judgement["measured_ms"]
    told = f"{measured:.3f} ms" + (" (met)" if judgement["met"] else f" (missed by {measured - target:.3f} ms)")
    return f"target at batch {judgement['batch']}: at most {target} ms of overhead, median: {told}"


__all__ = ["TARGETS_MS", "Cell", "Figures", "Judgement", "figures", "judge", "report", "table"]
