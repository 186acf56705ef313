"""Runs the pairs, each in fresh processes, and takes medians over the rounds."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from scripts.bench.ipc.death import measure_deaths
from scripts.bench.ipc.plan import Effort, cpu_pairs, round_pairs
from scripts.bench.ipc.spec import PairSpec
from scripts.lab.arguments import Say
from scripts.lab.clock import can_pin
from scripts.lab.others import Others
from scripts.lab.paths import ROOT

Row = dict[str, Any]

LIMIT_S = 180
FIGURES = ("p50_us", "p99_us", "p999_us", "max_us", "msgs_per_s")
_KEYS = ("transport", "size_bytes", "mode", "access", "batch", "pinned")
_MERGE: dict[str, Callable[[list[float]], float]] = {"max_us": max, "samples": sum}


class Bench:
    """One run over the named transports."""

    def __init__(self, names: tuple[str, ...], effort: Effort, say: Say) -> None:
        self.names, self.effort, self.say = names, effort, say
        self.skipped: dict[str, str] = {}
        self._seen: dict[tuple[Any, ...], list[Row]] = defaultdict(list)

    def run(self) -> Row:
        others = Others()
        pins = (True, False) if can_pin() else (False,)
        for number in range(self.effort.rounds):
            for pinned in pins:
                self.say(f"round {number + 1} of {self.effort.rounds}, {'pinned' if pinned else 'not pinned'}")
                for spec in round_pairs(self.names, self.effort, pinned=pinned):
                    self._measure(spec)
        self.say("CPU use, idle and at a 1 ms cadence")
        for spec in cpu_pairs(self.names, self.effort):
            self._measure(spec)
        rows = [self._merged(key) for key in self._seen]
        return {
            "results": [row for row in rows if row["mode"] != "idle"],
            "cpu": _cpu_rows(rows),
            "peer_death": measure_deaths(self.effort.deaths) if "ring" in self.names else None,
            "skipped": self.skipped,
            "rounds": self.effort.rounds,
            "cpu_busy_elsewhere_pct": others.percent() / (os.cpu_count() or 1),
        }

    def _measure(self, spec: PairSpec) -> None:
        if spec.transport in self.skipped:
            return
        answer = run_pair(spec)
        if "skipped" in answer:
            self.skipped[spec.transport] = answer["skipped"]
            self.say(f"{spec.transport}: skipped, {answer['skipped']}")
        for figures in answer.get("figures", ()):
            row = {"transport": spec.transport, "size_bytes": spec.size_bytes, "pinned": spec.pinned, **figures}
            self._seen[tuple(row[key] for key in _KEYS)].append(row)

    def _merged(self, key: tuple[Any, ...]) -> Row:
        rounds = self._seen[key]
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


def _cpu_rows(rows: list[Row]) -> list[Row]:
    """Percent of one CPU per side."""
    found: dict[str, Row] = {}
    for row in rows:
        if row["mode"] in {"idle", "cadence"}:
            use = found.setdefault(row["transport"], {"transport": row["transport"]})
            use[f"{row['mode']}_leader_pct"] = row["leader_cpu_pct"]
            use[f"{row['mode']}_follower_pct"] = row["follower_cpu_pct"]
    return list(found.values())
