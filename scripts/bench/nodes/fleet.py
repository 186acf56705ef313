"""Nodes, each the server's own scheduler before a device that takes simulated time, and the routers before them."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from zlib import crc32

import numpy as np

from pipeline.front.links.node import LOADS_S
from pipeline.link.connection import MISSED
from pipeline.runtime.generations import AWAY_S
from pipeline.wire.request import Submit
from scripts.bench.nodes.costs import FREE, RouterCosts
from scripts.bench.nodes.front import Front
from scripts.bench.nodes.seen import Figures, Seen
from scripts.bench.routing.clock import Clock
from scripts.bench.routing.replica import ASCEND, Device, Listener, Replica
from scripts.bench.routing.requests import Asked, Load

_HEARTBEAT_S = 1.0  # `pipeline.link.heartbeat_s`; a router looks as often whether three are missing
_NOTICE_S = 0.1  # of a process that died, by its launcher


@dataclass(frozen=True, slots=True)
class Loss:
    """Of a node, `at` s. `crashed`: its inference fails by itself, and the launcher says who may be to blame; else
    the machine is gone without a word, and routers miss its heartbeats. After `back` s it is there again, and
    empty."""

    node: int
    at: float
    crashed: bool = False
    back: float = 60.0

    @property
    def noticed(self) -> float:
        return self.at + (_NOTICE_S if self.crashed else (MISSED + 0.5) * _HEARTBEAT_S)


class Division(Enum):
    BY_KEY = "a conversation at one router"
    AT_RANDOM = "each request at any router"
    CELLS = "a conversation at one router, which has nodes of its own"


@dataclass(frozen=True, slots=True)
class Fleet:
    """`division`: of requests among the routers."""

    nodes: int
    routers: int = 1
    division: Division = Division.BY_KEY
    costs: RouterCosts = FREE
    device: Device = ASCEND
    losses: tuple[Loss, ...] = ()


class _Node(Listener):
    """What its replica says goes to the router whose request it is."""

    def __init__(self, number: int, simulation: Simulation) -> None:
        self.number, self._simulation, self._clock = number, simulation, simulation.clock
        self.replica = Replica(simulation.fleet.device, self)
        self.up = True
        self.requests = 0
        self.own, self.told = (Counter[int]() for _ in range(2))  # of each router; of the others, as it was told

    def submit(self, asked: Asked, submit: Submit) -> None:
        if self.up:  # else it is lost with the node, and sent again when that is noticed
            self.own[self._simulation.router_of(asked)] += 1
            self.requests += 1
            self.replica.submit(asked, self._clock.now, moved=submit.moved, suspect=submit.suspect)
            self._advance()

    def die(self) -> None:
        self.up, self.requests = False, 0
        self.own.clear()
        self.told.clear()

    def come_back(self) -> None:
        self.replica, self.up = Replica(self._simulation.fleet.device, self), True

    def _advance(self) -> None:
        if (ms := self.replica.advance()) is not None:
            self._clock.at(self._clock.now + ms, partial(self._finish_step, self.replica))

    def _finish_step(self, replica: Replica) -> None:
        if self.up and replica is self.replica:
            replica.finish_step(self._clock.now)
            self._advance()

    # ---- what the replica says --------------------------------------------------------------------------------

    def on_started(self, asked: Asked, cached_tokens: int) -> None:
        self._simulation.front_of(asked).on_started(asked, cached_tokens)

    def on_resumed(self, asked: Asked, missing: int) -> None:
        if self._clock.now >= self._simulation.seen.since:
            self._simulation.seen.again += missing

    def on_end(self, asked: Asked) -> None:
        self.requests -= 1
        self.own[self._simulation.router_of(asked)] -= 1

    def on_step(self, got: list[Asked]) -> None:
        self._simulation.on_tokens(got)


class Simulation:
    """One run. Figures are of what happens from `since` s on."""

    def __init__(self, fleet: Fleet, seed: int, since: float = 0.0) -> None:
        self.fleet, self.clock, self.seen = fleet, Clock(), Seen(1e3 * since)
        self._random = random.Random(seed)  # noqa: S311 - draws that can be repeated
        self._asked: dict[int, Asked] = {}
        self._front: dict[int, int] = {}  # request → router
        self._nodes = [_Node(number, self) for number in range(fleet.nodes)]
        few = fleet.device, fleet.costs, self.clock, self.seen, self._submit
        self._fronts = [
            Front(nodes, *few, self._random.randrange(fleet.nodes))
            for nodes in map(self._nodes_of, range(fleet.routers))
        ]

    def run(self, load: Load, seed: int, until: float = 1e9) -> Figures:
        """To this time in s, or until all is answered."""
        self._arrive_next(load(self.fleet.nodes, seed))
        if self.fleet.routers > 1 and self.fleet.division is not Division.CELLS:
            self._tell_loads()
        for loss in self.fleet.losses:
            self._lose_later(loss)
        self.clock.run(1e3 * until)
        end = min(1e3 * until, self.clock.now)
        for asked in self._asked.values():
            if asked.made == 0 and asked.arrival >= self.seen.since and end - asked.arrival > 1e3:
                self.seen.first.append(end - asked.arrival)  # it waits still
        busy = [front.busy_ms / max(end - self.seen.since, 1) for front in self._fronts]
        return Figures.of(self.seen, end, busy)

    def _nodes_of(self, router: int) -> range:
        nodes, routers = self.fleet.nodes, self.fleet.routers
        return range(router, nodes, routers) if self.fleet.division is Division.CELLS else range(nodes)

    def _fronts_of(self, node: int) -> list[Front]:
        return [front for front in self._fronts if node in front.nodes]

    def router_of(self, asked: Asked) -> int:
        return self._front[asked.number]

    def front_of(self, asked: Asked) -> Front:
        return self._fronts[self._front[asked.number]]

    # ---- requests ---------------------------------------------------------------------------------------------

    def _arrive_next(self, coming: Iterator[Asked]) -> None:
        asked = next(coming, None)
        if asked is None:
            return

        def arrive() -> None:
            self._arrive(asked)
            self._arrive_next(coming)

        self.clock.at(asked.arrival, arrive)

    def _arrive(self, asked: Asked) -> None:
        self.seen.requests += asked.arrival >= self.seen.since
        self._asked[asked.number] = asked
        key, routers = crc32(asked.session.to_bytes(8, "little")), self.fleet.routers
        at_random = self.fleet.division is Division.AT_RANDOM
        self._front[asked.number] = self._random.randrange(routers) if at_random else key % routers
        self.front_of(asked).on_request(asked)

    def _submit(self, node: int, submit: Submit) -> None:
        asked = self._asked[submit.request]
        known = np.frombuffer(submit.choices[0].output, np.int32)
        assert asked.made == len(known), "it would go on elsewhere than behind its client's last token"
        self._nodes[node].submit(asked, submit)

    def on_tokens(self, got: list[Asked]) -> None:
        """Of one step of a node, each to its router."""
        by_front = defaultdict[int, list[Asked]](list)
        for asked in got:
            by_front[self._front[asked.number]].append(asked)
        for front, own in by_front.items():
            for asked, end in self._fronts[front].on_tokens(own):
                self._end(asked, end)

    def _end(self, asked: Asked, end: float) -> None:
        del self._asked[asked.number], self._front[asked.number]
        self.seen.done.append(asked)
        following = asked.then(end) if asked.then else None
        if following is not None:
            self.clock.at(following.arrival, lambda: self._arrive(following))

    def _tell_loads(self) -> None:
        """Each router hears of the others' requests, as long as there are any to come."""
        for node in self._nodes:
            for number, front in enumerate(self._fronts):
                if (others := node.requests - node.own[number]) != node.told[number]:
                    node.told[number] = others
                    front.on_load(node.number, others, alone=not node.own[number])
        if self.clock.more:
            self.clock.at(self.clock.now + 1e3 * LOADS_S, self._tell_loads)

    # ---- losses -----------------------------------------------------------------------------------------------

    def _lose_later(self, loss: Loss) -> None:
        node = self._nodes[loss.node]

        def go() -> None:
            with_rows = node.replica.with_rows if loss.crashed else None
            node.die()
            self.clock.at(1e3 * loss.noticed, lambda: notice(with_rows))

        def notice(suspects: list[int] | None) -> None:
            for front in self._fronts_of(loss.node):
                own = None if suspects is None else [one for one in suspects if front.has(one)]
                front.on_lost(loss.node, own)

        def away() -> None:
            if not node.up:
                for front in self._fronts_of(loss.node):
                    front.on_away(loss.node)

        def come_back() -> None:
            node.come_back()
            for front in self._fronts_of(loss.node):
                front.on_up(loss.node)

        self.clock.at(1e3 * loss.at, go)
        self.clock.at(1e3 * (loss.noticed + AWAY_S), away)
        self.clock.at(1e3 * (loss.at + loss.back), come_back)
