"""Rounds of faults under load, and what is left afterwards."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pipeline.wire.topology import Topology
from scripts.lab.errors import BenchError
from scripts.lab.http import Client
from scripts.lab.server import Server
from scripts.verify.survival.faults import Fault, deal, inflict
from scripts.verify.survival.load import Load, Tally, jobs, undisturbed
from scripts.verify.survival.quiet import Quiet
from scripts.verify.survival.session import Plan, Report, hold
from scripts.verify.survival.weights import change

RECOVERY_S = 60.0
_LOOK_S = 0.05
_CHANGING_S = 3.0  # within which a stage is hit while weights are changed


class Live(Protocol):
    """An answer that is being read. `times_s`: of what has come of it. `replica`: that its first token came from."""

    began_s: float
    times_s: list[float]
    replica: str


class Work(Protocol):
    """What the server is to do meanwhile. `front_hit`: a front is being lost."""

    front_hit: bool

    @property
    def tally(self) -> Tally: ...

    @property
    def live(self) -> Mapping[int, Live]:
        """Answers that are under way, by number."""

    def start(self) -> None: ...

    async def stop(self) -> None:
        """No new answers; what is under way ends."""


@dataclass(frozen=True, slots=True)
class Ordeal(Plan):
    """What is to be done to the server. `stages`: keys of those that are hit. `prepare`: what it is to do meanwhile;
    by default, so many streams of known text. `folders`: of weights with which it answers the same, for changes."""

    rounds: int = 22
    stages: tuple[str, ...] = tuple(stage.key for stage in Topology().stages)
    streams: int = 32
    topology: Topology = Topology()  # noqa: RUF009 - it can't be changed
    detached_s: float = 60.0  # how long streams wait for their clients to come back; 0: clients do not
    prepare: Callable[[Ordeal, Server], Awaitable[Work]] | None = None
    folders: tuple[Path, ...] = ()

    @property
    def replicas(self) -> int:
        return self.topology.replicas


@dataclass(slots=True)
class Outcome(Report):
    """By kind of fault. `resumed_s`: how long each stream of replicas that were hit stood still. `fronts_s`: where
    the front was hit, from then to the first token of a connection made afterwards. `beside_s`: the longest gap of
    each stream at another replica."""

    rounds: int = 0
    resumed_s: dict[str, list[float]] = field(default_factory=dict)
    fronts_s: dict[str, list[float]] = field(default_factory=dict)
    beside_s: dict[str, list[float]] = field(default_factory=dict)
    restarts: int = 0


class NoRecovery(Exception):  # noqa: N818 - what happened, not an error of this program
    """The server did not come back."""


def run(plan: Ordeal) -> Outcome:
    """Raises ServerError, ValueError when there is nothing to begin with."""
    return hold(plan, lambda server: _run(plan, server))


async def _run(plan: Ordeal, server: Server) -> Outcome:
    load = await (plan.prepare or _known_texts)(plan, server)
    quiet, rounds = Quiet.of(server), Rounds(plan, server, load)
    report = rounds.report
    load.start()
    try:
        for fault in itertools.islice(rounds.faults(), plan.rounds):
            await rounds.suffer(fault)
    except NoRecovery as error:
        report.wrong.append(str(error))
        return report
    await load.stop()
    report.wrong += await asyncio.to_thread(quiet.differences, server)
    report.restarts = await asyncio.to_thread(server.restarts)
    return report


class Rounds:
    """One fault after the other, while there is work."""

    def __init__(self, plan: Ordeal, server: Server, load: Work) -> None:
        self.report = Outcome(load.tally)
        self._plan, self._server, self._load = plan, server, load
        self._rng = random.Random(plan.seed)  # noqa: S311 - repeatable, not secret
        self._changes = 0

    def faults(self) -> Iterator[Fault]:
        """Without end."""
        return deal(self._plan.stages, self._rng, weights=bool(self._plan.folders))

    async def suffer(self, fault: Fault) -> None:
        """Until all is as it was. Raises NoRecovery."""
        load, report = self._load, self.report
        await asyncio.sleep(self._rng.uniform(0.2, 1.0))
        before = await self._until(lambda numbers: True, "the next round")
        live, pids = dict(load.live), self._server.stages()
        began = time.monotonic()
        load.front_hit = fault.hits_front
        changing = asyncio.create_task(self._change(fault)) if fault.weights else None
        if changing and fault.signals:
            await asyncio.sleep(self._rng.uniform(0, _CHANGING_S))
        await inflict(fault, self._server.stages() if changing else pids, self._rng)
        changed = await changing if changing else ""
        hit = fault.replicas(self._plan.replicas) if fault.signals else set(range(self._plan.replicas))
        await self._until(lambda numbers: all(numbers[i] > before[i] for i in hit), fault.name)
        report.rounds += 1
        report.wrong += self._others(fault, pids)
        moved = {*map(str, range(self._plan.replicas) if fault.weights or fault.hits_front else hit)}
        if fault.hits_front:
            back = await self._first_token(began)
            report.fronts_s.setdefault(fault.kind, []).append(back)
            result, load.front_hit = f"front back after {back:.2f} s", False
        else:
            streams = await self._back(live, time.monotonic())
            resumed = [_silence(stream, began)[1] - began for stream in streams if stream.replica in moved]
            others = [one for one in streams if one.replica not in moved | {""} and one.times_s[0] < began]
            beside = [end - begin for begin, end in (_silence(stream, began) for stream in others)]
            kind = fault.kind
            report.resumed_s.setdefault(kind, []).extend(resumed)
            report.beside_s.setdefault(kind, []).extend(beside)
            result = f"{max(resumed, default=0):.2f} s" + (f", beside it {max(beside):.3f} s" if beside else "")
        for stream in (*live.values(), *load.live.values()):  # some have begun between the look and the fault
            if stream.replica in moved:
                stream.replica = ""  # it is elsewhere, and does not say where
        wrong = f"; {len(load.tally.wrong)} streams are wrong" if load.tally.wrong else ""
        print(f"{report.rounds:4} {fault.name:24} {result}{changed}{wrong}", flush=True)

    async def _change(self, fault: Fault) -> str:
        """How it went. Where something is hit meanwhile it may be rolled back."""
        report, folders = self.report, self._plan.folders
        self._changes += 1
        try:
            told = await change(self._server.base_url, folders[self._changes % len(folders)])
        except BenchError as error:
            raise NoRecovery(str(error)) from error
        outcome, ids = told["change"]["outcome"], {one["weights"] for one in told["replicas"]}
        if outcome != "done" and not fault.signals:
            report.wrong.append(f"new weights: {told['change']}")
        if outcome == "done" and ids != {told["change"]["weights"]}:
            report.wrong.append(f"new weights are done, but replicas have {ids}: {told['change']}")
        return f", weights {outcome}" + (f": {told['change']['error']}" if outcome != "done" else "")

    def _others(self, fault: Fault, before: Mapping[str, int]) -> list[str]:
        """Stages that were started anew though nothing was done to them, nor to another rank of theirs."""
        now, stages = self._server.stages(), self._plan.topology.stages
        hit = {stage.unit for stage in stages if stage.key in fault.signals}
        hit |= {stage.unit for stage in stages if fault.weights and stage.name == "inference"}
        others = (stage.key for stage in stages if stage.unit not in hit)
        return [f"{fault.name}: {key} was started anew, too" for key in others if now.get(key) != before[key]]

    async def _until(self, enough: Callable[[list[int]], bool], what: str) -> list[int]:
        """Until every stage is at work, with rings of such numbers, by replica."""
        deadline, keys = time.monotonic() + RECOVERY_S, {stage.key for stage in self._plan.topology.stages}
        while time.monotonic() < deadline:
            numbers = await self._generations()
            if numbers and enough(numbers) and set(self._server.stages()) == keys:
                return numbers
            await asyncio.sleep(_LOOK_S)
        raise NoRecovery(f"{what}: not all are at work within {RECOVERY_S:.0f} s")

    async def _back(self, before: dict[int, Live], back: float) -> list[Live]:
        """Those that were under way before and still are, when each has had a token again."""
        deadline = time.monotonic() + RECOVERY_S
        while time.monotonic() < deadline:
            streams = [stream for i, stream in before.items() if self._load.live.get(i) is stream]
            if all(stream.times_s and stream.times_s[-1] > back for stream in streams):
                return streams
            await asyncio.sleep(_LOOK_S)
        raise NoRecovery(f"some streams have had no token for {RECOVERY_S:.0f} s")

    async def _generations(self) -> list[int]:
        """Of complete sets of rings, by replica; none while some stage is not at work."""
        try:
            if self._plan.replicas > 1:
                return await self._generations_of_many()
            metrics = await asyncio.to_thread(self._server.metrics)
        except OSError:
            return []
        return [int(metrics.total("generation"))] if metrics.total("ready") else []

    async def _generations_of_many(self) -> list[int]:
        """Asked of what costs the front least, since gaps between tokens are measured meanwhile. Raises OSError."""
        client = Client(self._server.base_url, keep_alive=False)
        reply = await client.send(client.request("GET", "/ready"))
        replicas = json.loads(reply.body)["replicas"] if reply.status == 200 else []
        done = all(replica["state"] == "ok" for replica in replicas)
        return [int(replica["generation"]) for replica in replicas] if done else []

    async def _first_token(self, since: float) -> float:
        while time.monotonic() < since + RECOVERY_S:
            firsts = [
                stream.times_s[0] for stream in self._load.live.values() if stream.began_s > since and stream.times_s
            ]
            if firsts:
                return min(firsts) - since
            await asyncio.sleep(_LOOK_S)
        raise NoRecovery(f"no token from a new front within {RECOVERY_S:.0f} s")


def _silence(stream: Live, since: float) -> tuple[float, float]:
    """Begin and end of its longest one."""
    times = [since, *(time for time in stream.times_s if time > since)]
    return max(itertools.pairwise(times), key=lambda pair: pair[1] - pair[0])


async def _known_texts(plan: Ordeal, server: Server) -> Work:
    work = jobs(plan.streams, plan.tokens)
    return Load(server.port, work, await undisturbed(server.port, work), plan.detached_s)
