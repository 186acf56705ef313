"""A device that takes no time: how many tokens per second the server itself can bring to its clients."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scripts.bench.overhead.client import Question, Streams, serve_client
from scripts.bench.overhead.device import Device
from scripts.bench.overhead.figures import Goal
from scripts.bench.overhead.measure import Say
from scripts.bench.overhead.servers import Server, ringserve
from scripts.bench.overhead.tables import Row
from scripts.bench.overhead.workers import ask, worker

STREAMS = 64
RATE_GOAL = 25_000.0
FRONT_GOAL_US = 20.0
APIS = ("llm-serving", "completions")


def measure_null(tokens: int, rounds: int, directory: Path, say: Say) -> Row:
    """Raises StreamError, ServerError."""
    file = Device(0.0).write(directory / "null.yaml", STREAMS)
    rows: dict[str, list[Row]] = {api: [] for api in APIS}
    with worker(serve_client) as client, ringserve(file) as server:
        for api in APIS:
            ask(client, Question(server.port, api, STREAMS, 20))
        for number in range(rounds):
            say(f"null device, {STREAMS} streams: round {number + 1} of {rounds}")
            for api in APIS:
                before = server.cpu_s()
                streams = ask(client, Question(server.port, api, STREAMS, tokens))
                rows[api].append(_row(api, streams, before, server))
    results = [_median(api, rows[api]) for api in APIS]
    goals = []
    for row in results:
        goals += [
            Goal(f"null device, {row['api']}", row["tokens_per_s"], RATE_GOAL, "tokens/s", at_least=True),
            Goal(f"CPU of the front per token, {row['api']}", row["front_us"], FRONT_GOAL_US, "us"),
        ]
    title = (
        f"A device that takes no time: {STREAMS} streams of {tokens} tokens over HTTP, client on the same CPUs; "
        "CPU in microseconds per token"
    )
    return {"title": title, "results": results, "goals": [goal.told() for goal in goals]}


def _row(api: str, streams: Streams, before: dict[str, float], server: Server) -> Row:
    """From the first request to the last token."""
    times = streams.times_ns
    seconds = float(times.max() - streams.sent_ns.min()) / 1e9
    cpu = {f"{name}_us": 1e6 * (used - before[name]) / times.size for name, used in server.cpu_s().items()}
    writes = np.mean([np.unique(row).size for row in times])
    return {"tokens_per_s": times.size / seconds, "tokens_per_write": times.shape[1] / float(writes), **cpu}


def _median(api: str, rows: list[Row]) -> Row:
    return {"api": api, "rounds": len(rows)} | {
        name: round(float(np.median([row[name] for row in rows])), 1) for name in rows[0] if name != "launcher_us"
    }
