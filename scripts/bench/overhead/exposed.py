"""Exposed host time over the time that a device takes: what a faster device would still wait for."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from scripts.bench.overhead.device import PROMPT_ROOM, Device
from scripts.bench.overhead.figures import GOALS_MS, Row, figures
from scripts.bench.overhead.measure import Plan, measure
from scripts.bench.overhead.servers import DEFAULT, choose
from scripts.lab.arguments import Say
from scripts.lab.goals import Goal

STEPS_MS = (0.5, 1.0, 2.0, 5.0, 22.5)
BATCHES = (1, 32)
_GOALS_MS = GOALS_MS[max(GOALS_MS)]
_MAX_LENGTH = 8192


def exposed(options: argparse.Namespace, directory: Path, say: Say) -> Row:
    """The mean counts here: with short steps tokens come in pairs, and the median of the time between two tokens
    says nothing about how many come."""
    rows: list[Row] = []
    for step_ms in options.steps_ms:
        device = Device(step_ms, _MAX_LENGTH)
        seconds = min(options.seconds, (_MAX_LENGTH - PROMPT_ROOM) * step_ms / 2e3)
        plan = Plan(device, BATCHES, seconds, options.rounds, choose(DEFAULT), tuple(options.overrides))
        results = measure(plan, directory, say)
        for row in figures(results, plan):
            cells = results[DEFAULT, row["batch"]]
            rows.append(_row(step_ms, row, [float(cell.itl_ms.mean() - np.median(cell.bare_ms)) for cell in cells]))
    goals = [
        Goal(
            f"exposed beyond {row['device_ms']:g} ms at batch {row['batch']}",
            row["mean_ms"],
            _GOALS_MS[row["batch"]],
            "ms",
        )
        for row in rows
    ]
    size = f"{options.rounds} rounds of {options.seconds:g} s at most, medians over rounds"
    title = f"Exposed host time, ms per token beyond the bare step of an emulated device: {size}"
    return {"title": title, "results": rows, "goals": [goal.told() for goal in goals]}


def _row(step_ms: float, row: Row, means_ms: list[float]) -> Row:
    parts = row["parts"]
    own = {f"{name}_us": parts[name]["mean_us"] if name in parts else None for name in ("wait", "launch")}
    return {
        "device_ms": step_ms,
        "batch": row["batch"],
        "mean_ms": round(float(np.median(means_ms)), 4),
        "least_mean_ms": round(min(means_ms), 4),
        "p50_ms": row["overhead_p50_ms"],
        "p99_ms": row["overhead_p99_ms"],
        **own,
        "late_us": row["late_us"],
    }
