"""What came of the cells: figures, and the judgement against the goals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from scripts.bench.overhead.measure import Cell, Plan, Results
from scripts.bench.overhead.servers import DEFAULT, REPLACED
from scripts.lab.goals import Goal

Row = dict[str, Any]

GOALS_MS = {22.5: {1: 0.15, 32: 0.5}, 5.0: {1: 0.25, 32: 0.8}}
"""Host overhead per step, median, by device and batch."""
P99_GOAL = 3.0  # times the median
RATIO_GOAL = 25.0  # times less than the replaced path
ROW_GOAL_US = 10.0  # for each further row


def figures(results: Results, plan: Plan) -> list[Row]:
    """Of each variant at each batch: medians over rounds of each round's figure."""
    rows = [_figures(variant.name, batch, results) for variant in plan.variants for batch in plan.batches]
    replaced = {row["batch"]: row["overhead_p50_ms"] for row in rows if row["variant"] == REPLACED}
    for row in rows:
        if row["batch"] in replaced and row["overhead_p50_ms"] > 0:
            row["ratio_to_replaced"] = round(replaced[row["batch"]] / row["overhead_p50_ms"], 4)
    return rows


def _figures(variant: str, batch: int, results: Results) -> Row:
    cells = results[variant, batch]
    itl = np.array([(*np.percentile(cell.itl_ms, [50, 99]), cell.itl_ms.mean()) for cell in cells])
    bare = np.array([(*np.percentile(cell.bare_ms, [50, 99]), cell.bare_ms.mean()) for cell in cells])
    over = itl - bare[:, [0, 0, 2]]  # the 99th percentile, too, less the median of the bare step
    names = [f"{what}_{which}_ms" for what in ("itl", "bare", "overhead") for which in ("p50", "p99")]
    times = np.median(np.hstack([itl[:, :2], bare[:, :2], over]), axis=0)
    return {
        "variant": variant,
        "batch": batch,
        "rounds": len(cells),
        "tokens": sum(cell.itl_ms.size for cell in cells),
        **dict(zip([*names, "overhead_mean_ms"], times.round(4).tolist(), strict=True)),
        "late_us": _median([_late_us(cell) for cell in cells]),
        "residual_us": _median([cell.residual_us for cell in cells]),
        "ratio_to_replaced": None,  # the replaced path's overhead over this one's
        "cpu_percent": medians([cell.cpu_percent for cell in cells]),
        "cpu_us_per_token": medians([cell.cpu_us for cell in cells]),
        "parts": _parts(cells),
    }


def _late_us(cell: Cell) -> float | None:
    """How much longer the device takes beside a server than alone, mean."""
    return cell.parts["device"].mean_us - 1e3 * float(cell.bare_ms.mean()) if cell.parts else None


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(float(np.median(known)), 1) if known else None


def medians(rounds: list[dict[str, float]], digits: int = 2) -> dict[str, float]:
    return {name: round(float(np.median([values[name] for values in rounds])), digits) for name in rounds[0]}


def _parts(cells: list[Cell]) -> dict[str, dict[str, float]]:
    names = set.intersection(*(set(cell.parts) for cell in cells))
    return {name: medians([asdict(cell.parts[name]) for cell in cells]) for name in sorted(names)}


def goals(rows: list[Row], step_ms: float | None) -> list[Goal]:
    """Of the default configuration on a device that goals are set for."""
    own = {row["batch"]: row for row in rows if row["variant"] == DEFAULT}
    wanted = GOALS_MS.get(step_ms or 0.0, {})
    judged = []
    for batch in [batch for batch in wanted if batch in own]:
        over, ratio = own[batch]["overhead_p50_ms"], own[batch]["ratio_to_replaced"]
        judged.append(Goal(f"overhead at batch {batch}, median", over, wanted[batch], "ms"))
        if step_ms == max(GOALS_MS) and over > 0:
            times = round(own[batch]["overhead_p99_ms"] / over, 4)
            judged.append(Goal(f"p99 of it over its median at batch {batch}", times, P99_GOAL, "x"))
        if ratio is not None:
            what = f"times less than the replaced path at batch {batch}"
            judged.append(Goal(what, ratio, RATIO_GOAL, "x", at_least=True))
    if wanted and {1, 32} <= own.keys():
        each = 1e3 * (own[32]["overhead_p50_ms"] - own[1]["overhead_p50_ms"]) / 31
        judged.append(Goal("each further row", round(each, 2), ROW_GOAL_US, "us"))
    return judged
