"""Late tokens of one stream, and who made them late.

A token is late by what its way took beyond the device: from the end of the step before to the start of its own, and
from the end of that to the client, less the usual time of the latter. Each late one is put down to the part of its
way that took longest beyond its median, and so to a stage.

On a machine that others use, most of the tail is time in which a process could run and had no CPU. Of that are told
apart, and their shares printed, tokens in whose time, or in that of the one before or behind:
- a thread has waited for a CPU: the kernel counts that for every thread (/proc/<pid>/schedstat);
- the hypervisor has had a CPU to itself (steal in /proc/stat, in ticks of 10 ms: less of it does not show);
- the thread whose part was slow has neither run, nor waited, nor slept: it had a CPU that did not run.

What is left may still be the machine's: a CPU that sleeps is woken late, and nobody counts that. So hand-overs alone
(`chain`) are measured beside it, in turns, and judged in the same way.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import gc
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.wire.topology import FRONT, INFERENCE, SAMPLING
from scripts.bench.overhead.chain import STAMP, Chain, chain
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
CLIENT = "client"
STAGE_OF = {
    "wait": INFERENCE.name,
    "launch": INFERENCE.name,
    "publish": SAMPLING.name,
    "sample": SAMPLING.name,
    "detokenize and send": SAMPLING.name,
    "front": FRONT.name,
    "write": FRONT.name,
    "client": CLIENT,
}
"""From one step's end to the next token in the client's hands, but for the device between `launch` and `publish`: who
has, or is woken for, each part."""
PARTS = tuple(STAGE_OF)
DELIVERY = PARTS[PARTS.index("publish") :]
AWAKE = ("launch", "sample", "detokenize and send", "write")
"""Parts in which nobody has to be woken."""
_MOST_TOKENS = 3500  # the statistics page keeps the stamps of so many steps
_SETTLING = 10
_CONNECTED = "connected"
_TIMEOUT_S = 120.0

Int64 = NDArray[np.int64]


# ---- what is watched ---------------------------------------------------------------------------------------------


class Counts:
    """What the kernel has counted by the time that each token had come: of main threads and of this one how long they
    ran and waited for a CPU, in ns, and how often they got one; and of all CPUs the ticks that were stolen."""

    def __init__(self, tokens: int, threads: int) -> None:
        self.ran, self.waited, self.turns = (np.zeros((tokens, threads), np.int64) for _ in range(3))
        self.stolen: Int64 = np.zeros(tokens, np.int64)

    def note(self, first: int, last: int, files: Sequence[int]) -> None:
        """Of these tokens, which have come together; `files` as of `open_counts`."""
        *threads, stat = files
        read = np.array([os.pread(fd, 80, 0).split() for fd in threads], np.int64)
        self.ran[first:last], self.waited[first:last], self.turns[first:last] = read.T
        self.stolen[first:last] = int(os.pread(stat, 200, 0).split(None, 9)[8])

    def waited_ms(self, token: int) -> NDArray[np.float64]:
        """By each thread, in the time of this token and of the one before."""
        return np.asarray((self.waited[token] - self.waited[token - 2]) / 1e6)

    def stolen_ticks(self, token: int) -> int:
        """They are counted with the next tick of the clock."""
        return int(self.stolen[min(token + 1, len(self.stolen) - 1)] - self.stolen[token - 2])

    def around(self, token: int) -> tuple[NDArray[np.float64], Int64]:
        """How long, in ms, and how often each thread ran, in the time of this token and of the next."""
        end = min(token + 1, len(self.ran) - 1)
        return np.asarray((self.ran[end] - self.ran[token - 1]) / 1e6), self.turns[end] - self.turns[token - 1]


@contextlib.contextmanager
def open_counts(pids: Sequence[int]) -> Iterator[list[int]]:
    """Descriptors for `Counts.note`."""
    paths = [*(f"/proc/{pid}/task/{pid}/schedstat" for pid in (*pids, os.getpid())), "/proc/stat"]
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Path(path).open("rb", 0)).fileno() for path in paths]


@dataclass(frozen=True, slots=True)
class Watched:
    times_ns: Int64  # [tokens]
    counts: Counts
    done_ns: Int64 | None = None  # of a chain: when the device was done


def serve_watcher(pipe: Connection) -> None:
    """Answers (port, tokens, pids, whether it is a chain) with `Watched`; of a chain first with `_CONNECTED`."""

    def answer(asked: tuple[int, int, list[int], bool]) -> None:
        port, tokens, pids, is_chain = asked
        gc.disable()
        try:
            watched = watch_chain(port, tokens, pids, pipe) if is_chain else watch(port, tokens, pids)
            pipe.send(watched)
        except (BenchError, OSError) as error:
            pipe.send(BenchError(str(error)))
        gc.enable()

    answer_each(pipe, answer)


def watch(port: int, tokens: int, pids: list[int]) -> Watched:
    """One stream. Raises BenchError, OSError."""
    times, counts = np.zeros(tokens, np.int64), Counts(tokens, len(pids) + 1)
    stream = open_stream(port, "llm-serving", tokens)
    with open_counts(pids) as files, contextlib.closing(stream.connection):
        seen = 0
        while seen < tokens:
            if not (part := stream.connection.recv(1 << 16)):
                raise BenchError(f"{seen} tokens came instead of {tokens}")
            stream.on_data(part, time.monotonic_ns())
            times[seen : len(stream.times)] = stream.times[seen:]
            counts.note(seen, len(stream.times), files)
            seen = len(stream.times)
    return Watched(times, counts)


def watch_chain(port: int, tokens: int, pids: list[int], pipe: Connection) -> Watched:
    """Raises BenchError, OSError."""
    times, counts, data = np.zeros(tokens, np.int64), Counts(tokens, len(pids) + 1), b""
    with open_counts(pids) as files, socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S) as connection:
        connection.recv(STAMP.size)  # from here on it is handed over to
        pipe.send(_CONNECTED)
        while (seen := len(data) // STAMP.size) < tokens:
            if not (part := connection.recv(1 << 16)):
                raise BenchError(f"{seen} hand-overs came instead of {tokens}")
            now, data = time.monotonic_ns(), data + part
            times[seen : len(data) // STAMP.size] = now
            counts.note(seen, len(data) // STAMP.size, files)
    return Watched(times, counts, np.frombuffer(data[: tokens * STAMP.size], np.int64))


# ---- the section -------------------------------------------------------------------------------------------------


def tail(options: argparse.Namespace, directory: Path, say: Say) -> Row:
    """At batch 1, and hand-overs alone, in turns; all rounds together."""
    file = Device(STEP_MS).write(directory / "tail.yaml", 1)
    every: list[Row] = []
    alone: list[Row] = []
    with worker(serve_watcher) as watcher, ringserve(file) as server, chain(file) as bare:
        for number in range(-1, options.rounds):  # the first one warms up
            say(f"late tokens: round {number + 1} of {options.rounds}")
            tokens = min(_MOST_TOKENS, int(1e3 * options.seconds * 2 / STEP_MS))
            found, handed = _round(server, watcher, tokens), _hand_over(bare, watcher, tokens)
            if number >= 0:
                every, alone = every + found, alone + handed
    return _judged(every, alone)


def _round(server: Server, watcher: Connection, tokens: int) -> list[Row]:
    pids = {name: pid for name, pid in server.pids.items() if name != "launcher"}
    with server.traced(tokens * (STEP_MS + 0.2) / 1e3 + 1) as events:
        watched: Watched = ask(watcher, (server.port, tokens, list(pids.values()), False))
    return tokens_of(watched, events, [*pids, CLIENT])


def _hand_over(bare: Chain, watcher: Connection, tokens: int) -> list[Row]:
    connected = ask(watcher, (bare.port, tokens, list(bare.pids.values()), True))
    assert connected == _CONNECTED
    bare.device.send(tokens)
    watched = watcher.recv()
    if isinstance(watched, Exception):
        raise watched
    took = (watched.times_ns - watched.done_ns) / 1e6
    late = took - np.median(took)
    return [
        {"late": float(late[token]), **_excuses(watched.counts, token, [*bare.pids, CLIENT])}
        for token in range(_SETTLING, len(late))
    ]


def _excuses(counts: Counts, token: int, names: Sequence[str]) -> Row:
    """The thread that waited longest, and ticks that were stolen."""
    waits = counts.waited_ms(token)
    longest = int(waits.argmax())
    return {"waited": float(waits[longest]), "who": names[longest], "stolen": counts.stolen_ticks(token)}


def tokens_of(watched: Watched, events: list[dict[str, Any]], names: Sequence[str]) -> list[Row]:
    """Of each token behind the first ones: its parts, in ms, and what the kernel has counted, by thread."""
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
        own = {name: parts[name] / 1e3 for name in PARTS}
        ran, turns = watched.counts.around(token)
        counted = {"ran": dict(zip(names, ran.tolist(), strict=True)), "turns": dict(zip(names, turns, strict=True))}
        rows.append({**_excuses(watched.counts, token, names), **counted, **own})
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


# ---- what came of it ---------------------------------------------------------------------------------------------


def _judged(every: list[Row], alone: list[Row]) -> Row:
    """A row for each part: how many late tokens it is to blame for, and how late they were."""
    if not every:
        raise BenchError("the trace holds no step of the stream")
    usual = {name: float(np.median([row[name] for row in every])) for name in PARTS}
    delivery = sum(usual[name] for name in DELIVERY)
    for row in every:
        row["late"] = sum(row[name] for name in PARTS) - delivery
        row["part"] = max(PARTS, key=lambda name: row[name] - usual[name])
    _count_work(every, usual)
    kept = [row for row in every if not _excused(row)]
    own = {part: [row for row in kept if row["late"] > LATE_MS and row["part"] == part] for part in PARTS}
    rows: list[Row] = [
        {
            "part": part,
            "stage": STAGE_OF[part],
            "median_us": round(1e3 * usual[part], 1),
            "p99_us": round(1e3 * float(np.percentile([row[part] for row in every], 99)), 1),
            "late_tokens": len(own[part]),
            "latest_ms": round(max((row["late"] for row in own[part]), default=0.0), 3),
            "ran_longer_ms": round(max(((row["late"], row["more"]) for row in own[part]), default=(0.0, 0.0))[1], 3),
        }
        for part in PARTS
    ]
    latest = round(max(row["late"] for row in kept), 3) if kept else None
    goal = Goal("latest token while no thread waited for a CPU", latest, LATE_MS, "ms")
    beside = [row for row in alone if not _excused(row)]
    title = (
        f"One stream on a device of {STEP_MS:g} ms. {_counted('tokens', every)}\n"
        f"Of the {len(kept)} others: {_spread(kept)}.\n"
        f"Hand-overs alone, beside it: {_counted('hand-overs', alone)}\n"
        f"Of the {len(beside)} others: {_spread(beside)}.\n"
        "Tokens of the stream that were late all the same, by the slow part; ran_longer: CPU time of its stage "
        "beyond the usual, of the latest:"
    )
    excluded = round(100 * (1 - len(kept) / len(every)), 2)
    told = {"title": title, "results": rows, "goals": [goal.told()], "excluded_percent": excluded}
    return told | {"latest_ms": latest, "late_alone": _late(beside), "latest_alone_ms": _latest(beside)}


def _count_work(every: list[Row], usual: dict[str, float]) -> None:
    """`more`: how much longer than usual the stage of a token's slow part ran, in ms. `stopped`: while it was to run,
    it neither ran nor waited nor slept."""
    for name in {*STAGE_OF.values()}:
        ran = float(np.median([row["ran"][name] for row in every]))
        turns = float(np.median([row["turns"][name] for row in every]))
        for row in every:
            if STAGE_OF[row["part"]] == name:
                row["more"] = max(0.0, row["ran"][name] - ran)
                lost = row[row["part"]] - usual[row["part"]] - row["more"] - row["waited"]
                stood_still = row["part"] in AWAKE and lost > WAITED_MS and row["turns"][name] <= turns
                row["stopped"] = stood_still and row["late"] > LATE_MS


def _excused(row: Row) -> str:
    """Why nobody is to blame for a token, if so."""
    if row["waited"] > WAITED_MS:
        return str(row["who"])
    return "stolen" if row["stolen"] else "stopped" if row.get("stopped") else ""


def _counted(what: str, rows: list[Row]) -> str:
    if not rows:
        return f"There are no {what}."
    why = Counter(_excused(row) for row in rows if row["late"] > LATE_MS)
    waited = [f"{name} {count}" for name, count in why.most_common() if name not in ("", "stolen", "stopped")]
    waiting = 100 * sum(row["waited"] > WAITED_MS for row in rows) / len(rows)
    stolen = 100 * sum(row["stolen"] > 0 for row in rows) / len(rows)
    return (
        f"{why.total()} of {len(rows)} {what} were later than {LATE_MS:g} ms. Left out: in the time of {waiting:.1f} "
        f"% of all a thread waited more than {WAITED_MS:g} ms for a CPU (late ones: {', '.join(waited) or 'none'}), "
        f"of {stolen:.1f} % the hypervisor took a tick (late ones: {why['stolen']}), and of {why['stopped']} late "
        "ones a thread stood still."
    )


def _late(rows: list[Row]) -> int:
    return sum(row["late"] > LATE_MS for row in rows)


def _latest(rows: list[Row]) -> float | None:
    return round(max(row["late"] for row in rows), 3) if rows else None


def _spread(rows: list[Row]) -> str:
    if not rows:
        return "there is none"
    p50, p99, latest = np.percentile([row["late"] for row in rows], [50, 99, 100])
    return f"{_late(rows)} late, median {p50:.3f}, p99 {p99:.3f}, latest {latest:.3f} ms"
