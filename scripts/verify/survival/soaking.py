"""A long time under mixed load, and what has grown meanwhile."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field

from scripts.lab.processes import resident_bytes
from scripts.lab.server import Server
from scripts.verify.survival.load import jobs, undisturbed
from scripts.verify.survival.mischief import BAD, abandon, send
from scripts.verify.survival.quiet import Quiet, lost_wakes
from scripts.verify.survival.session import Plan, Report, hold
from scripts.verify.survival.streams import Stream, read

_WHOLE, _CUT, _BAD, _ABANDONED = "whole streams", "clients that went away", "bad requests", "half requests"
_MIX = {_WHOLE: 70, _CUT: 15, _BAD: 10, _ABANDONED: 5}
_SAMPLES = 200  # of memory, over the whole time


@dataclass(frozen=True, slots=True)
class Soak(Plan):
    """`growth` is the part by which the memory of a process may grow in the second half."""

    seconds: float = 600.0
    clients: int = 40
    growth: float = 0.01


@dataclass(slots=True)
class Outcome(Report):
    done: Counter[str] = field(default_factory=Counter)
    memory: dict[str, list[int]] = field(default_factory=dict)  # by process, RSS in bytes
    running: list[float] = field(default_factory=list)  # rows in use, at each sample

    def growth(self, name: str) -> float:
        """Of the second half: from its first to its last fifth, by medians."""
        half = self.memory[name][len(self.memory[name]) // 2 :]
        fifth = max(1, len(half) // 5)
        return statistics.median(half[-fifth:]) / statistics.median(half[:fifth]) - 1


def run(plan: Soak) -> Outcome:
    """Raises ServerError, ValueError when there is nothing to begin with."""
    return hold(plan, lambda server: _Run(plan, server).run())


class _Run:
    def __init__(self, plan: Soak, server: Server) -> None:
        self._plan, self._server = plan, server
        self._jobs = jobs(64, plan.tokens)
        self._report = Outcome()
        self._until = 0.0

    async def run(self) -> Outcome:
        plan, server, report = self._plan, self._server, self._report
        self._expected = await undisturbed(server.port, self._jobs)
        quiet, stages = Quiet.of(server), server.stages()
        self._until = time.monotonic() + plan.seconds
        await asyncio.gather(self._watch(), *(self._client(i) for i in range(plan.clients)))
        report.wrong += await asyncio.to_thread(quiet.differences, server)
        if server.stages() != stages:
            report.wrong.append("a stage was restarted")
        if lost := lost_wakes(server):
            report.wrong.append(f"{lost} wake-ups were lost")
        for name in report.memory:
            if (growth := report.growth(name)) > plan.growth:
                report.wrong.append(f"{name} grew by {growth:.1%} in the second half")
        return report

    async def _watch(self) -> None:
        pause = self._plan.seconds / _SAMPLES
        while time.monotonic() < self._until:
            await asyncio.sleep(pause)
            for name, pid in self._server.processes().items():
                self._report.memory.setdefault(name, []).append(resident_bytes(pid))
            metrics = await asyncio.to_thread(self._server.metrics)
            self._report.running.append(metrics.total("num_requests_running"))
            if len(self._report.running) % (_SAMPLES // 10) == 0:
                self._print_progress()

    def _print_progress(self) -> None:
        memory = ", ".join(f"{name} {sizes[-1] / 2**20:.1f}" for name, sizes in self._report.memory.items())
        left = max(0.0, self._until - time.monotonic())
        print(f"{left:6.0f} s left, {self._report.tally.tokens} tokens, MiB: {memory}", flush=True)

    async def _client(self, number: int) -> None:
        rng = random.Random(f"{self._plan.seed}/{number}")  # noqa: S311 - repeatable, not secret
        while time.monotonic() < self._until:
            (what,) = rng.choices(list(_MIX), list(_MIX.values()))
            self._report.done[what] += 1
            if what == _BAD:
                if wrong := await send(self._server.port, rng.choice(BAD)):
                    self._report.wrong.append(wrong)
            elif what == _ABANDONED:
                await abandon(self._server.port, rng)
            else:
                await self._stream(rng, cut=what == _CUT)

    async def _stream(self, rng: random.Random, *, cut: bool) -> None:
        i = rng.randrange(len(self._jobs))
        job, expected, stream = self._jobs[i], self._expected[i], Stream()
        most = rng.randint(1, len(expected)) if cut else None
        await read(self._server.port, job, stream, most=most)
        if most is not None and len(stream.tokens) >= most:
            self._report.tally.partial(job, stream, expected)
        else:
            self._report.tally.complete(job, stream, expected)
