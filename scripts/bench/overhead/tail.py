"""Late tokens of one stream, and who made them late.

A token is late by what its way took beyond the device: from the end of the step before to the start of its own, and
from the end of that to the client, less the usual time of the latter. On a machine that others use, most of the tail
is time in which a process could run and had no CPU. The kernel counts that for every thread (/proc/<pid>/schedstat),
and the client reads those counts with each token: tokens in whose time, or in that of the one before, a thread has
waited for a CPU are told apart, and their share is printed. Each other late one is put down to the part of its way
that took longest beyond its median.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import gc
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.bench.overhead.client import open_stream
from scripts.bench.overhead.device import Device
from scripts.bench.overhead.figures import Row
from scripts.bench.overhead.servers import Server, ringserve
from scripts.lab.arguments import Say
from scripts.lab.errors import BenchError
from scripts.lab.goals import Goal
from scripts.lab.workers import answer_each, ask, worker

STEP_MS = 5.0
LATE_MS = 0.5
WAITED_MS = 0.2
PARTS = ("wait", "launch", "publish", "sample", "detokenize and send", "front", "write", "client")
"""From one step's end to the next token in the client's hands, but for the device between `launch` and `publish`."""
DELIVERY = PARTS[PARTS.index("publish") :]
_MOST_TOKENS = 3500  # the statistics page keeps the stamps of so many steps
_SETTLING = 10

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Watched:
    """A stream's tokens, and how long threads had waited for a CPU when each had come."""

    times_ns: Int64  # [tokens]
    waited_ns: Int64  # [tokens, threads], so far


def serve_watcher(pipe: Connection) -> None:
    """Answers (port, tokens, pids) with `Watched`."""
    answer_each(pipe, lambda asked: pipe.send(watch(*asked)))


def watch(port: int, tokens: int, pids: list[int]) -> Watched:
    """Of one stream. Raises BenchError, OSError."""
    times, waited = np.zeros(tokens, np.int64), np.zeros((tokens, len(pids) + 1), np.int64)
    stream = open_stream(port, "llm-serving", tokens)
    gc.disable()
    with schedstats([*pids, os.getpid()]) as counts, contextlib.closing(stream.connection):
        seen = 0
        while seen < tokens:
            if not (part := stream.connection.recv(1 << 16)):
                raise BenchError(f"{seen} tokens came instead of {tokens}")
            stream.on_data(part, time.monotonic_ns())
            times[seen : len(stream.times)] = stream.times[seen:]
            waited[seen : len(stream.times)] = [_waited_ns(fd) for fd in counts]
            seen = len(stream.times)
    gc.enable()
    return Watched(times, waited)


@contextlib.contextmanager
def schedstats(pids: list[int]) -> Iterator[list[int]]:
    """Descriptors of the main threads' counts."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(Path(f"/proc/{pid}/task/{pid}/schedstat").open("rb", 0)) for pid in pids]
        yield [file.fileno() for file in files]


def _waited_ns(fd: int) -> int:
    return int(os.pread(fd, 80, 0).split()[1])


def tail(options: argparse.Namespace, directory: Path, say: Say) -> Row:
    """At batch 1; all rounds together."""
    file = Device(STEP_MS).write(directory / "tail.yaml", 1)
    every: list[Row] = []
    with worker(serve_watcher) as watcher, ringserve(file) as server:
        for number in range(-1, options.rounds):  # the first one warms up
            say(f"late tokens: round {number + 1} of {options.rounds}")
            found = _round(server, watcher, min(_MOST_TOKENS, int(1e3 * options.seconds * 2 / STEP_MS)))
            every += found if number >= 0 else []
    return _judged(every)


def _round(server: Server, watcher: Connection, tokens: int) -> list[Row]:
    pids = {name: pid for name, pid in server.pids.items() if name != "launcher"}
    with server.traced(tokens * (STEP_MS + 0.2) / 1e3 + 1) as events:
        watched: Watched = ask(watcher, (server.port, tokens, list(pids.values())))
    names = [*pids, "client"]
    return tokens_of(watched, events, names)


def tokens_of(watched: Watched, events: list[dict[str, Any]], names: list[str]) -> list[Row]:
    """Of each token behind the first ones: its parts, and the thread that waited longest, in ms."""
    steps = _steps(events)
    ends = [end for end, _ in steps]
    writes = sorted((event["ts"], event["ts"] + event["dur"]) for event in events if event["name"] == "write")
    begins = [begin for begin, _ in writes]
    rows = []
    for token in range(_SETTLING, len(watched.times_ns)):
        now_us = float(watched.times_ns[token]) / 1e3
        place, write = bisect.bisect_right(ends, now_us) - 1, bisect.bisect_right(begins, now_us) - 1
        if place < 1 or write < 0:
            continue
        begin, end = writes[write]
        parts = {**steps[place][1], "write": end - begin, "client": now_us - end}
        parts["front"] = begin - parts.pop("sent")
        waits = (watched.waited_ns[token] - watched.waited_ns[token - 2]) / 1e6
        longest = int(waits.argmax())
        own = {name: parts[name] / 1e3 for name in PARTS}
        rows.append({"waited": float(waits[longest]), "who": names[longest], **own})
    return rows


def _steps(events: list[dict[str, Any]]) -> list[tuple[float, dict[str, float]]]:
    """Of each decode step behind another one: when it was computed, and its parts, in µs."""
    found: dict[int, dict[str, tuple[float, float]]] = {}
    for event in events:
        if event.get("args", {}).get("decode_rows") == 1:
            found.setdefault(event["args"]["step"], {})[event["name"]] = event["ts"], event["ts"] + event["dur"]
    steps = []
    for number, step in sorted(found.items()):
        before = found.get(number - 1, {})
        if step.keys() >= {"launch", "device", *PARTS[2:5]} and "device" in before:
            parts = {name: step[name][1] - step[name][0] for name in ("launch", *PARTS[2:5])}
            parts |= {"wait": step["launch"][0] - before["device"][1], "sent": step["detokenize and send"][1]}
            steps.append((step["device"][1], parts))
    return steps


def _judged(every: list[Row]) -> Row:
    """A row for each part: how many late tokens it is to blame for, and how late they were."""
    if not every:
        raise BenchError("the trace holds no step of the stream")
    usual = {name: float(np.median([row[name] for row in every])) for name in PARTS}
    delivery = sum(usual[name] for name in DELIVERY)
    for row in every:
        row["late"] = sum(row[name] for name in PARTS) - delivery
    late = [row for row in every if row["late"] > LATE_MS]
    own = [row for row in late if row["waited"] <= WAITED_MS]
    blamed = [(max(PARTS, key=lambda name: row[name] - usual[name]), row["late"]) for row in own]
    rows: list[Row] = [
        {
            "part": part,
            "median_us": round(1e3 * usual[part], 1),
            "p99_us": round(1e3 * float(np.percentile([row[part] for row in every], 99)), 1),
            "late_tokens": sum(name == part for name, _ in blamed),
            "latest_ms": round(max((ms for name, ms in blamed if name == part), default=0.0), 3),
        }
        for part in PARTS
    ]
    waited = Counter(row["who"] for row in late if row["waited"] > WAITED_MS)
    about = ", ".join(f"{name} {count}" for name, count in waited.most_common()) or "none"
    share = 100 * len([row for row in every if row["waited"] > WAITED_MS]) / len(every)
    kept = [row["late"] for row in every if row["waited"] <= WAITED_MS]
    title = (
        f"Late tokens of one stream on a device of {STEP_MS:g} ms: {len(late)} of {len(every)} were later than "
        f"{LATE_MS:g} ms.\nIn the time of {share:.1f} % of all a thread waited more than {WAITED_MS:g} ms for a CPU; "
        f"these are left out below. Late ones among them, by that thread: {about}.\nOf the {len(kept)} others: "
        f"{_spread(kept)}; by the slow part:"
    )
    latest = round(max(kept), 3) if kept else None
    goal = Goal("latest token while no thread waited for a CPU", latest, LATE_MS, "ms")
    return {"title": title, "results": rows, "goals": [goal.told()], "excluded_percent": round(share, 2)}


def _spread(lateness: list[float]) -> str:
    if not lateness:
        return "there is none"
    p50, p99 = np.percentile(lateness, [50, 99])
    return f"median {p50:.3f}, p99 {p99:.3f}, latest {max(lateness):.3f} ms"
