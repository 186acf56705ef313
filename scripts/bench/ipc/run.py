"""Runs the pairs, each in fresh processes, and takes medians over the rounds."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import ipc
from scripts.bench.ipc.broadcast import measure_broadcast
from scripts.bench.ipc.plan import Effort, cpu_pairs, round_pairs
from scripts.bench.ipc.transports.base import PairSpec
from scripts.lab.arguments import Say
from scripts.lab.clock import can_pin
from scripts.lab.others import Others
from scripts.lab.paths import ROOT

Row = dict[str, Any]

LIMIT_S = 180
FIGURES = ("p50_us", "p99_us", "p999_us", "max_us", "msgs_per_s")
_KEYS = ("transport", "size_bytes", "mode", "access", "batch", "pinned")
_MERGE: dict[str, Callable[[list[float]], float]] = {"max_us": max, "samples": sum}


def run(names: tuple[str, ...], effort: Effort, say: Say) -> Row:
    """What a run over the named transports gives, without the machine."""
    others, skipped, seen = Others(), dict[str, str](), defaultdict[tuple[Any, ...], list[Row]](list)

    def measure(spec: PairSpec) -> None:
        if spec.transport in skipped:
            return
        answer = run_pair(spec)
        if "skipped" in answer:
            skipped[spec.transport] = answer["skipped"]
            say(f"{spec.transport}: skipped, {answer['skipped']}")
        for figures in answer.get("figures", ()):
            row = {"transport": spec.transport, "size_bytes": spec.size_bytes, "pinned": spec.pinned, **figures}
            seen[tuple(row[key] for key in _KEYS)].append(row)

    for number in range(effort.rounds):
        for pinned in (True, False) if can_pin() else (False,):
            say(f"round {number + 1} of {effort.rounds}, {'pinned' if pinned else 'not pinned'}")
            for spec in round_pairs(names, effort, pinned=pinned):
                measure(spec)
    say("CPU use, idle and at a 1 ms cadence")
    for spec in cpu_pairs(names, effort):
        measure(spec)
    rows = [_merged(key, rounds) for key, rounds in seen.items()]
    return {
        "results": [row for row in rows if row["mode"] != "idle"],
        "cpu": _cpu_rows(rows),
        "broadcast": _broadcast_rows(effort, say) if "ring" in names else [],
        "peer_death": measure_deaths(effort.deaths) if "ring" in names else None,
        "skipped": skipped,
        "rounds": effort.rounds,
        "cpu_busy_elsewhere_pct": others.percent() / (os.cpu_count() or 1),
    }


def _merged(key: tuple[Any, ...], rounds: list[Row]) -> Row:
    row = dict(zip(_KEYS, key, strict=True)) | dict.fromkeys(FIGURES) | {"rounds": len(rounds)}
    for name in rounds[0].keys() - set(_KEYS):
        row[name] = _MERGE.get(name, statistics.median)([figures[name] for figures in rounds])
    return row


def run_pair(spec: PairSpec) -> Row:
    """A process group of its own, so that nothing outlives it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "scripts.bench.ipc.pair", spec.to_text()]
    leader = subprocess.Popen(
        command, env=environment, process_group=0, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        out, errors = leader.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return {"skipped": f"no end after {LIMIT_S} s ({_describe(spec)})"}
    finally:
        _end_group(leader)
    if leader.returncode:
        last = (errors.strip().splitlines() or [f"exit status {leader.returncode}"])[-1]
        return {"skipped": f"failed ({_describe(spec)}): {last}"}
    answer: Row = json.loads(out.splitlines()[-1])
    return answer


def _end_group(leader: subprocess.Popen[str]) -> None:
    """The follower, too, and what else a transport started."""
    try:
        os.killpg(leader.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        leader.wait()


def _describe(spec: PairSpec) -> str:
    return f"{spec.size_bytes} bytes, {', '.join(job.mode for job in spec.jobs)}"


def _broadcast_rows(effort: Effort, say: Say) -> list[Row]:
    """Rounds alternate between pinned and not."""
    say("broadcast rings")
    seen = defaultdict[tuple[bool, int], list[Row]](list)
    for _ in range(effort.rounds):
        for pinned in (True, False) if can_pin() else (False,):
            for row in measure_broadcast(max(1, 20 // effort.scale), effort.parked, pinned=pinned):
                seen[pinned, row["readers"]].append(row)
    figures = ("awake_us", "parked_us")
    return [
        rows[0] | {name: statistics.median([row[name] for row in rows]) for name in figures} for rows in seen.values()
    ]


def _cpu_rows(rows: list[Row]) -> list[Row]:
    """Percent of one CPU per side."""
    found: dict[str, Row] = {}
    for row in rows:
        if row["mode"] in {"idle", "cadence"}:
            use = found.setdefault(row["transport"], {"transport": row["transport"]})
            use[f"{row['mode']}_leader_pct"] = row["leader_cpu_pct"]
            use[f"{row['mode']}_follower_pct"] = row["follower_cpu_pct"]
    return list(found.values())


# ---- how soon a process that sleeps in a ring learns that the other side was killed -------------------------------


_VICTIM = """
import sys, time, ipc
end = ipc.SlotRing.from_handle(ipc.RingHandle.from_text(sys.argv[1])).producer(label="victim")
print("ready", flush=True)
time.sleep(60)
"""


def measure_deaths(rounds: int) -> dict[str, Any]:
    """Milliseconds from `kill -9` to PeerDied in a reader that waits. The kill comes at any point of a slice."""
    delays = [_one_death(0.05 + 0.013 * i) for i in range(rounds)]
    return {"rounds": rounds, "p50_ms": statistics.median(delays), "max_ms": max(delays)}


def _one_death(after_s: float) -> float:
    with ipc.SlotRing.create("death", slots=2, slot_size=64) as ring:
        command = [sys.executable, "-c", _VICTIM, ring.handle.to_text()]
        with subprocess.Popen(command, pass_fds=ring.handle.fds, stdout=subprocess.PIPE) as victim:
            assert victim.stdout is not None
            victim.stdout.readline()
            killed: list[float] = []

            def kill() -> None:
                killed.append(time.perf_counter())
                os.kill(victim.pid, signal.SIGKILL)

            timer = threading.Timer(after_s, kill)
            timer.start()
            with ring.consumer() as consumer:
                try:
                    consumer.read(timeout=30)
                except ipc.PeerDied:
                    return (time.perf_counter() - killed[0]) * 1e3
    raise RuntimeError("the victim's death was never noticed")
