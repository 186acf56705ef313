"""What came of the cells: figures, and the judgement against the goals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from scripts.bench.overhead.measure import Cell, Plan, Results
from scripts.bench.overhead.stamps import Part
from scripts.bench.overhead.variants import DEFAULT, REPLACED
from scripts.lab.goals import Goal

GOALS_MS = {22.5: {1: 0.15, 32: 0.5}, 5.0: {1: 0.25, 32: 0.8}}
"""Host overhead per step, median, by device and batch."""
P99_GOAL = 3.0  # times the median
RATIO_GOAL = 25.0  # times less than the replaced path
ROW_GOAL_US = 10.0  # for each further row


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one variant at one batch: medians over rounds of each round's figure."""

    variant: str
    batch: int
    rounds: int
    tokens: int
    itl_p50_ms: float
    itl_p99_ms: float
    bare_p50_ms: float
    bare_p99_ms: float
    overhead_p50_ms: float
    overhead_p99_ms: float  # 99th percentile of the inter-token latency, less the median of the bare step
    overhead_mean_ms: float
    late_us: float | None  # how much longer the device takes beside a server than alone, mean
    residual_us: float | None  # time between tokens that the stamps do not explain, mean
    ratio_to_replaced: float | None  # replaced path's overhead over this one's
    cpu_percent: dict[str, float]
    cpu_us_per_token: dict[str, float]
    parts: dict[str, Part]


def figures(results: Results, plan: Plan) -> list[Figures]:
    every = [_figures(variant.name, batch, results) for variant in plan.variants for batch in plan.batches]
    replaced = {row.batch: row.overhead_p50_ms for row in every if row.variant == REPLACED}
    return [
        replace(row, ratio_to_replaced=_round(replaced[row.batch] / row.overhead_p50_ms))
        if row.batch in replaced and row.overhead_p50_ms > 0
        else row
        for row in every
    ]


def _figures(variant: str, batch: int, results: Results) -> Figures:
    cells = results[variant, batch]
    itl = np.array([(*np.percentile(cell.itl_ms, [50, 99]), cell.itl_ms.mean()) for cell in cells])
    bare = np.array([(*np.percentile(cell.bare_ms, [50, 99]), cell.bare_ms.mean()) for cell in cells])
    over = np.median(itl - bare[:, [0, 0, 2]], axis=0)
    itl, bare = np.median(itl, axis=0), np.median(bare, axis=0)
    return Figures(
        variant=variant,
        batch=batch,
        rounds=len(cells),
        tokens=sum(cell.itl_ms.size for cell in cells),
        itl_p50_ms=_round(itl[0]),
        itl_p99_ms=_round(itl[1]),
        bare_p50_ms=_round(bare[0]),
        bare_p99_ms=_round(bare[1]),
        overhead_p50_ms=_round(over[0]),
        overhead_p99_ms=_round(over[1]),
        overhead_mean_ms=_round(over[2]),
        late_us=_median([_late_us(cell) for cell in cells]),
        residual_us=_median([cell.residual_us for cell in cells]),
        ratio_to_replaced=None,
        cpu_percent=_medians([cell.cpu_percent for cell in cells]),
        cpu_us_per_token=_medians([cell.cpu_us for cell in cells]),
        parts=_parts([cell.parts for cell in cells]),
    )


def _late_us(cell: Cell) -> float | None:
    return cell.parts["device"].mean_us - 1e3 * float(cell.bare_ms.mean()) if cell.parts else None


def _round(value: float | np.floating[Any]) -> float:
    return round(float(value), 4)


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(float(np.median(known)), 1) if known else None


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(float(np.median([values[name] for values in rounds])), 2) for name in rounds[0]}


def _parts(rounds: list[dict[str, Part]]) -> dict[str, Part]:
    names = set.intersection(*(set(parts) for parts in rounds))
    every = {name: np.array([list(asdict(parts[name]).values()) for parts in rounds]) for name in sorted(names)}
    return {name: Part(*np.round(np.median(values, axis=0), 2).tolist()) for name, values in every.items()}


def goals(rows: list[Figures], step_ms: float | None) -> list[Goal]:
    """Of the default configuration on a device that goals are set for."""
    own = {row.batch: row for row in rows if row.variant == DEFAULT}
    wanted = GOALS_MS.get(step_ms or 0.0, {})
    judged = []
    for batch, goal in wanted.items():
        if batch in own:
            row = own[batch]
            judged.append(Goal(f"overhead at batch {batch}, median", row.overhead_p50_ms, goal, "ms"))
            if step_ms == max(GOALS_MS) and row.overhead_p50_ms > 0:
                times = _round(row.overhead_p99_ms / row.overhead_p50_ms)
                judged.append(Goal(f"p99 of it over its median at batch {batch}", times, P99_GOAL, "x"))
            if row.ratio_to_replaced is not None:
                what = f"times less than the replaced path at batch {batch}"
                judged.append(Goal(what, row.ratio_to_replaced, RATIO_GOAL, "x", at_least=True))
    if wanted and {1, 32} <= own.keys():
        each = 1e3 * (own[32].overhead_p50_ms - own[1].overhead_p50_ms) / 31
        judged.append(Goal("each further row", round(each, 2), ROW_GOAL_US, "us"))
    return judged
