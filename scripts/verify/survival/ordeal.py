"""Rounds of faults under load, and what is left afterwards."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.wire.topology import STAGES
from scripts.lab.server import Server
from scripts.verify.survival.faults import Fault, deal, inflict
from scripts.verify.survival.load import Load, jobs, undisturbed
from scripts.verify.survival.quiet import Quiet
from scripts.verify.survival.session import Plan, Report, hold
from scripts.verify.survival.streams import Stream

RECOVERY_S = 60.0
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Ordeal(Plan):
    """What is to be done to the server."""

    rounds: int = 22
    stages: tuple[str, ...] = STAGES
    streams: int = 32


@dataclass(slots=True)
class Outcome(Report):
    """By kind of fault. `resumed_s`: how long each stream stood still. `fronts_s`: where the front was hit, from then
    to the first token of a connection made afterwards."""

    rounds: int = 0
    resumed_s: dict[str, list[float]] = field(default_factory=dict)
    fronts_s: dict[str, list[float]] = field(default_factory=dict)
    restarts: int = 0


class NoRecovery(Exception):  # noqa: N818 - what happened, not an error of this program
    """The server did not come back."""


def run(plan: Ordeal) -> Outcome:
    """Raises ServerError, ValueError when there is nothing to begin with."""
    return hold(plan, lambda server: _Run(plan, server).run())


class _Run:
    def __init__(self, plan: Ordeal, server: Server) -> None:
        self._plan, self._server = plan, server
        self._rng = random.Random(plan.seed)  # noqa: S311 - repeatable, not secret

    async def run(self) -> Outcome:
        plan, server = self._plan, self._server
        work = jobs(plan.streams, plan.tokens)
        expected = await undisturbed(server.port, work)
        quiet = Quiet.of(server)
        self._load = load = Load(server.port, work, expected)
        self._report = report = Outcome(load.tally)
        load.start()
        try:
            for fault in itertools.islice(deal(plan.stages, self._rng), plan.rounds):
                await self._round(fault)
        except NoRecovery as error:
            report.wrong.append(str(error))
            return report
        await load.stop()
        report.wrong += await asyncio.to_thread(quiet.differences, server)
        report.restarts = await asyncio.to_thread(server.restarts)
        return report

    async def _round(self, fault: Fault) -> None:
        load, report = self._load, self._report
        await asyncio.sleep(self._rng.uniform(0.2, 1.0))
        generation = await self._until(lambda number: number > 0, "the next round")
        live, pids = dict(load.live), self._server.stages()
        began = time.monotonic()
        load.front_hit = fault.hits_front
        await inflict(fault, pids, self._rng)
        await self._until(lambda number: number > generation, fault.name)
        report.rounds += 1
        if fault.hits_front:
            back = await self._first_token(began)
            report.fronts_s.setdefault(fault.name, []).append(back)
            result, load.front_hit = f"front back after {back:.2f} s", False
        else:
            silences = await self._silences(live, began, time.monotonic())
            report.resumed_s.setdefault(fault.name, []).extend(silences)
            result = f"{max(silences, default=0):.2f} s"
        wrong = f"; {len(load.tally.wrong)} streams are wrong" if load.tally.wrong else ""
        print(f"{report.rounds:4} {fault.name:24} {result}{wrong}", flush=True)

    async def _until(self, enough: Callable[[int], bool], what: str) -> int:
        """Until every stage is at work, with rings of such a number."""
        deadline = time.monotonic() + RECOVERY_S
        while time.monotonic() < deadline:
            number = await self._generation()
            if enough(number) and set(self._server.stages()) == set(STAGES):
                return number
            await asyncio.sleep(_LOOK_S)
        raise NoRecovery(f"{what}: not all are at work within {RECOVERY_S:.0f} s")

    async def _silences(self, before: dict[int, Stream], began: float, back: float) -> list[float]:
        """Of each stream that was under way before and still is: from then to the end of its longest silence."""
        deadline = time.monotonic() + RECOVERY_S
        while time.monotonic() < deadline:
            streams = [stream for i, stream in before.items() if self._load.live.get(i) is stream]
            if all(stream.times_s and stream.times_s[-1] > back for stream in streams):
                return [_silence(stream, began) for stream in streams]
            await asyncio.sleep(_LOOK_S)
        raise NoRecovery(f"some streams have had no token for {RECOVERY_S:.0f} s")

    async def _generation(self) -> int:
        """Of complete sets of rings; 0 while some stage is not at work."""
        try:
            metrics = await asyncio.to_thread(self._server.metrics)
        except OSError:
            return 0
        return int(metrics.total("generation")) if metrics.total("ready") else 0

    async def _first_token(self, since: float) -> float:
        while time.monotonic() < since + RECOVERY_S:
            firsts = [
                stream.times_s[0] for stream in self._load.live.values() if stream.began_s > since and stream.times_s
            ]
            if firsts:
                return min(firsts) - since
            await asyncio.sleep(_LOOK_S)
        raise NoRecovery(f"no token from a new front within {RECOVERY_S:.0f} s")


def _silence(stream: Stream, since: float) -> float:
    times = [since, *(time for time in stream.times_s if time > since)]
    return max(itertools.pairwise(times), key=lambda pair: pair[1] - pair[0])[1] - since
