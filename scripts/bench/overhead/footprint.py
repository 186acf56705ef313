"""What the server needs while it does nothing: memory, CPU, and the time until it is ready."""

from __future__ import annotations

import time
from pathlib import Path

from scripts.bench.overhead.client import Question, serve_client
from scripts.bench.overhead.figures import Goal
from scripts.bench.overhead.measure import Say
from scripts.bench.overhead.servers import Server, ringserve
from scripts.bench.overhead.tables import Row
from scripts.bench.overhead.workers import ask, worker
from scripts.lab.paths import ROOT

CONFIGURATION = ROOT / "configs" / "demo.yaml"
MEMORY_GOAL_MB, READY_GOAL_S, IDLE_GOAL_PERCENT = 250.0, 20.0, 1.0
_LIGHT = ("front", "preprocess", "sampling")


def measure_footprint(idle_s: float, directory: Path, say: Say) -> Row:
    """Of the demo model, after it has served a few requests. Raises StreamError, ServerError."""
    say("memory, idle CPU and start of the demo model")
    file = directory / "demo.yaml"
    file.write_text(_absolute(CONFIGURATION), encoding="utf-8")
    with worker(serve_client) as client, ringserve(file, ("serving_config.server_port=0",)) as server:
        ask(client, Question(server.port, "llm-serving", 8, 50))
        time.sleep(1)  # until all have come to rest
        before = server.cpu_s()
        time.sleep(idle_s)
        idle = {stage: 100 * (used - before[stage]) / idle_s for stage, used in server.cpu_s().items()}
        rows = [_row(stage, server, idle[stage]) for stage in server.pids]
        ready_s = round(server.ready_s, 2)
    light = sum(row["rss_mb"] for row in rows if row["stage"] in _LIGHT)
    goals = [
        Goal("resident memory of front, preprocess and sampling", round(light, 1), MEMORY_GOAL_MB, "MB"),
        Goal("ready after the command", ready_s, READY_GOAL_S, "s"),
        Goal("idle CPU of all processes", round(sum(idle.values()), 3), IDLE_GOAL_PERCENT, "% of one core"),
    ]
    title = "The demo model's server at rest (PSS: memory shared with others in parts)"
    return {"title": title, "ready_s": ready_s, "results": rows, "goals": [goal.told() for goal in goals]}


def _absolute(file: Path) -> str:
    """Its relative paths are meant from where it lies."""
    return file.read_text(encoding="utf-8").replace("../", f"{file.parent.parent}/")


def _row(stage: str, server: Server, idle_percent: float) -> Row:
    lines = Path(f"/proc/{server.pids[stage]}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return {
        "stage": stage,
        "rss_mb": round(kib["Rss"] / 1024, 1),
        "pss_mb": round(kib["Pss"] / 1024, 1),
        "idle_cpu_percent": round(idle_percent, 3),
    }
