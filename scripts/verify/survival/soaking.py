"""A long time under mixed load, and what has grown meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scripts.lab.processes import own_bytes, threads
from scripts.lab.server import Server
from scripts.verify.survival.load import Tally, jobs, undisturbed
from scripts.verify.survival.mischief import BAD, abandon, send
from scripts.verify.survival.ordeal import NoRecovery, Ordeal, Rounds, Work
from scripts.verify.survival.quiet import ALLOWED, Quiet, kinds_of_descriptors, lost_wakes, segments
from scripts.verify.survival.session import Plan, Report, hold
from scripts.verify.survival.streams import Stream, read

_WHOLE, _CUT, _BAD, _ABANDONED = "whole streams", "clients that went away", "bad requests", "half requests"
_MIX = {_WHOLE: 70, _CUT: 15, _BAD: 10, _ABANDONED: 5}
_SAMPLES = 200  # of memory, over the whole time
_MISCHIEF_S = 0.5  # between two of a client's that does nothing else
_LAUNCHER = "launcher"
_FEW = 8  # descriptors and threads, that may come and go


@dataclass(frozen=True, slots=True)
class Soak(Plan):
    """`growth` is the part by which the memory of a process may grow in the second half. `ordeal`: what is asked
    beside that, and what happens to processes and weights in the first half, a fault each `fault_s`; in the second
    they are left alone, so that growth can be seen."""

    seconds: float = 600.0
    clients: int = 40
    growth: float = 0.01
    ordeal: Ordeal | None = None
    fault_s: float = 30.0


@dataclass(slots=True)
class Outcome(Report):
    done: Counter[str] = field(default_factory=Counter)
    memory: dict[str, list[int]] = field(default_factory=dict)  # by process, in bytes
    threads: dict[str, list[int]] = field(default_factory=dict)  # by process
    descriptors: dict[str, list[int]] = field(default_factory=dict)  # by process
    segments: list[int] = field(default_factory=list)
    blocks: list[float] = field(default_factory=list)  # of KV, in use
    running: list[float] = field(default_factory=list)  # rows in use, at each sample
    faults: int = 0
    restarts: int = 0
    asked: Tally | None = None  # of the ordeal

    def growth(self, name: str) -> float:
        """Of the second half, by medians: from its second fifth, since a process that was started anew shortly before
        is warm by then, to its last."""
        return _growth(self.memory[name][len(self.memory[name]) // 2 :])

    def early_growth(self, name: str) -> float:
        """The same of the first half."""
        return _growth(self.memory[name][: len(self.memory[name]) // 2])

    def more(self, counts: Sequence[int]) -> int:
        """By how many it grew in the second half, at most and in the mean."""
        half = counts[len(counts) // 2 :]
        fifth = max(1, len(half) // 5)
        return int(min(max(half[-fifth:]) - max(half[:fifth]), _mean(half[-fifth:]) - _mean(half[:fifth])))


def _mean(counts: Sequence[int]) -> float:
    return sum(counts) / len(counts)


def _growth(sizes: Sequence[int]) -> float:
    fifth = max(1, len(sizes) // 5)
    return statistics.median(sizes[-fifth:]) / statistics.median(sizes[fifth : 2 * fifth]) - 1


def run(plan: Soak) -> Outcome:
    """Raises ServerError, ValueError when there is nothing to begin with."""
    return hold(plan, lambda server: _Run(plan, server).run())


class _Run:
    def __init__(self, plan: Soak, server: Server) -> None:
        self._plan, self._server = plan, server
        self._jobs = jobs(64, plan.tokens)
        self._report = Outcome()
        self._began = self._until = 0.0
        self._names: tuple[str, ...] = ()  # of processes that are there all the time

    async def run(self) -> Outcome:
        plan, server, report = self._plan, self._server, self._report
        if plan.ordeal is not None:
            assert plan.ordeal.prepare is not None
            load = await plan.ordeal.prepare(plan.ordeal, server)
            report.asked = load.tally
        self._expected = await undisturbed(server.port, self._jobs)
        quiet, stages = Quiet.of(server), server.stages()
        self._names = (_LAUNCHER, *stages)
        self._began = time.monotonic()
        self._until = self._began + plan.seconds
        if plan.ordeal is None:
            await asyncio.gather(self._watch(), *(self._client(i, _MIX) for i in range(plan.clients)))
        else:
            mischief = {what: weight for what, weight in _MIX.items() if what != _WHOLE}
            clients = (self._client(i, mischief, _MISCHIEF_S) for i in range(plan.clients))
            await self._under(load, Rounds(plan.ordeal, server, load), asyncio.gather(self._watch(), *clients))
        report.wrong += await asyncio.to_thread(quiet.differences, server)
        if plan.ordeal is None and server.stages() != stages:
            report.wrong.append("a stage was restarted")
        if lost := lost_wakes(server):
            report.wrong.append(f"{lost} wake-ups were lost")
        report.restarts = await asyncio.to_thread(server.restarts)
        report.wrong += self._grown()
        return report

    async def _under(self, load: Work, rounds: Rounds, others: asyncio.Future[list[None]]) -> None:
        """All of the others, while this is asked for, and happens."""
        report = self._report
        load.start()
        try:
            for fault in rounds.faults():
                if time.monotonic() > self._began + self._plan.seconds / 2 - self._plan.fault_s:
                    break
                await rounds.suffer(fault)
                report.faults += 1
                await asyncio.sleep(self._plan.fault_s)
        except NoRecovery as error:
            report.wrong.append(str(error))
            self._until = 0
        await others
        await load.stop()
        report.wrong += [*rounds.report.wrong, *load.tally.wrong]

    def _grown(self) -> list[str]:
        report, most = self._report, self._plan.growth
        found = [f"{name} grew by {report.growth(name):.1%} in the second half" for name in report.memory
                 if report.growth(name) > most]  # fmt: skip
        if report.memory and (early := report.early_growth(_LAUNCHER)) > most:
            found.append(f"{_LAUNCHER} grew by {early:.1%} in the first half")
        for what, by_name in (("threads", report.threads), ("descriptors", report.descriptors)):
            for name, counts in by_name.items():
                if (more := report.more(counts)) > _FEW:
                    found.append(f"{name} had {more} {what} more at the end")
        if report.segments and report.more(report.segments) > 0:
            found.append(f"there were {report.more(report.segments)} segments more at the end")
        return found

    async def _watch(self) -> None:
        pause = self._plan.seconds / _SAMPLES
        while time.monotonic() < self._until:
            await asyncio.sleep(pause)
            await asyncio.to_thread(self._sample)
            if len(self._report.segments) % (_SAMPLES // 10) == 0:
                self._print_progress()

    def _sample(self) -> None:
        """What is being started or ended just now has nothing to say."""
        report = self._report
        now = self._server.processes()
        for name, pid in ((name, now[name]) for name in self._names if name in now):
            with contextlib.suppress(OSError, KeyError):
                report.memory.setdefault(name, []).append(own_bytes(pid))
                report.threads.setdefault(name, []).append(threads(pid))
                report.descriptors.setdefault(name, []).append(kinds_of_descriptors(pid).total() - ALLOWED)
        report.segments.append(len(segments(self._server)))
        with contextlib.suppress(OSError):
            metrics = self._server.metrics()
            report.running.append(metrics.total("num_requests_running"))
            report.blocks.append(metrics.total("kv_blocks_used"))

    def _print_progress(self) -> None:
        report = self._report
        left, asked = max(0.0, self._until - time.monotonic()), report.asked or report.tally
        held = f"{report.segments[-1]} segments, {report.blocks[-1] if report.blocks else 0:.0f} KV blocks in use"
        print(f"{left:6.0f} s left, {asked.streams} answers, {len(asked.wrong)} wrong, {held}", flush=True)
        for name, sizes in report.memory.items():
            print(f"  {name:14} {sizes[-1] / 2**20:7.1f} MiB, {report.threads[name][-1]} threads, "
                  f"{report.descriptors[name][-1]} descriptors", flush=True)  # fmt: skip

    async def _client(self, number: int, mix: Mapping[str, int], pause_s: float = 0) -> None:
        rng = random.Random(f"{self._plan.seed}/{number}")  # noqa: S311 - repeatable, not secret
        while time.monotonic() < self._until:
            await asyncio.sleep(pause_s)
            (what,) = rng.choices(list(mix), list(mix.values()))
            self._report.done[what] += 1
            try:
                if what == _BAD:
                    if wrong := await send(self._server.port, rng.choice(BAD)):
                        self._report.wrong.append(wrong)
                elif what == _ABANDONED:
                    await abandon(self._server.port, rng)
                else:
                    await self._stream(rng, cut=what == _CUT)
            except OSError as error:
                if self._plan.ordeal is None:  # else its front may have been hit
                    self._report.wrong.append(f"{what}: {error!r}")

    async def _stream(self, rng: random.Random, *, cut: bool) -> None:
        i = rng.randrange(len(self._jobs))
        job, expected, stream = self._jobs[i], self._expected[i], Stream()
        most = rng.randint(1, len(expected)) if cut else None
        await read(self._server.port, job, stream, most=most)
        if self._plan.ordeal is not None:
            return  # its own requests are compared
        if most is not None and len(stream.tokens) >= most:
            self._report.tally.partial(job, stream, expected)
        else:
            self._report.tally.complete(job, stream, expected)
