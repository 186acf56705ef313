"""Whether a step costs more at the end of a long context than at the beginning of a short one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scripts.bench.overhead.client import serve_client
from scripts.bench.overhead.device import Device, serve_bare_steps
from scripts.bench.overhead.figures import Goal
from scripts.bench.overhead.measure import Cell, Cells, Plan, Say
from scripts.bench.overhead.servers import started
from scripts.bench.overhead.tables import Row
from scripts.bench.overhead.variants import choose
from scripts.bench.overhead.workers import worker

CONTEXTS = (64, 4096)
BATCH = 8
CHANGE_GOAL_PERCENT = 5.0


def measure_context(seconds: float, rounds: int, directory: Path, say: Say) -> Row:
    """Of the same server, alternating. Raises StreamError, ServerError."""
    device, (variant,) = Device(5.0, max_length=8192), choose("completions")
    plans = {n: Plan(device, (BATCH,), seconds, rounds, (variant,), prompt_tokens=n) for n in CONTEXTS}
    file = device.write(directory / "context.yaml", BATCH)
    cells: dict[int, list[Cell]] = {n: [] for n in CONTEXTS}
    with (
        worker(serve_client) as client,
        worker(serve_bare_steps, file) as bare,
        started(variant, file, (BATCH,)) as s,
    ):
        for number in range(rounds):
            say(f"contexts of {' and '.join(map(str, CONTEXTS))} tokens: round {number + 1} of {rounds}")
            for n in CONTEXTS if number % 2 == 0 else CONTEXTS[::-1]:
                cells[n].append(Cells(plans[n], variant, s, client, bare).run(BATCH))
    rows = [_row(n, cells[n]) for n in CONTEXTS]
    change = 100 * (rows[1]["itl_p50_ms"] / rows[0]["itl_p50_ms"] - 1)
    path = [row["wait_p50_us"] + row["launch_p50_us"] for row in rows]
    goals = [
        Goal("change of the time between tokens, 64 → 4096 tokens", round(change, 2), CHANGE_GOAL_PERCENT, "%"),
        Goal(
            "change of wait + launch, 64 → 4096 tokens",
            round(100 * (path[1] / path[0] - 1), 1),
            CHANGE_GOAL_PERCENT,
            "%",
        ),
    ]
    title = f"By length of the context; device {device.name}, batch {BATCH}"
    return {"title": title, "results": rows, "goals": [goal.told() for goal in goals]}


def _row(context: int, cells: list[Cell]) -> Row:
    itl = [np.median(cell.itl_ms) for cell in cells]
    over = [np.median(cell.itl_ms) - np.median(cell.bare_ms) for cell in cells]
    row: Row = {
        "context": context,
        "itl_p50_ms": round(float(np.median(itl)), 4),
        "overhead_p50_ms": round(float(np.median(over)), 4),
    }
    for name in ("wait", "launch", "schedule"):
        row[f"{name}_p50_us"] = round(float(np.median([cell.parts[name].p50_us for cell in cells])), 1)
    return row
