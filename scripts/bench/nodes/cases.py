"""What is simulated, by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scripts.bench.nodes.costs import MEASURED
from scripts.bench.nodes.fleet import Division, Fleet, Loss, Simulation
from scripts.bench.nodes.seen import Figures
from scripts.bench.routing.requests import Chats, Independent, Load

CHATS, PROMPTS = "chats", "prompts"
LOADS: dict[str, tuple[float, float, float]] = {CHATS: (0.7, 30.0, 20.0), PROMPTS: (12.0, 8.0, 3.0)}
"""New conversations, or requests, per node and second; for so many seconds, of which the first are not counted."""

PER_ROUTER = {CHATS: 100, PROMPTS: 32}
"""Nodes that leave a third of its CPU to spare."""

ONE_ROUTER = {CHATS: (64, 192, 320), PROMPTS: (16, 32, 48, 64)}
"""Nodes before one router."""


_SOON_S, _MACHINE_S = 20.0, 60.0  # until an inference process, and a machine, has its model again


@dataclass(frozen=True, slots=True)
class Case:
    part: str
    load: str
    fleet: Fleet
    seconds: float
    since: float

    @property
    def name(self) -> str:
        fleet = self.fleet
        division = "" if fleet.routers == 1 else f", {fleet.division.value}"
        return f"{self.part}: {fleet.nodes} nodes, {self.load}, routers: {fleet.routers}{division}"

    @property
    def losses(self) -> str:
        """In words."""
        if not self.fleet.losses:
            return "no loss"
        loss = self.fleet.losses[0]
        return f"fail by themselves, back after {loss.back:g} s" if loss.crashed else "machines are gone"


def made(part: str, load: str, fleet: Fleet, times: float = 1.0) -> Case:
    _, seconds, since = LOADS[load]
    return Case(part, load, fleet, times * seconds, min(1.0, times) * since)


def by_nodes(nodes: Sequence[int]) -> list[Case]:
    """As many routers as they need, each with nodes of its own."""
    return [
        made("nodes", load, Fleet(number, -(-number // PER_ROUTER[load]), Division.CELLS, MEASURED))
        for load in LOADS
        for number in nodes
    ]


def of_one_router() -> list[Case]:
    """Until its CPU has no more time."""
    return [made("router", load, Fleet(number, costs=MEASURED), 0.5) for load in LOADS for number in ONE_ROUTER[load]]


def by_routers(routers: Sequence[int], nodes: int) -> list[Case]:
    """More than these nodes need."""
    divisions = [(number, each) for number in routers for each in Division if number > 1 or each is Division.BY_KEY]
    return [made("routers", CHATS, Fleet(nodes, *one, MEASURED)) for one in divisions]


def with_losses(nodes: int, losses: int) -> list[Case]:
    """None; machines that are gone; inference that fails by itself, and is back before others take what may have made
    it fail, or later. In the time that is left after the last loss, all that waits goes on."""
    _, seconds, since = LOADS[CHATS]
    times = [since + 0.8 * seconds * (number + 0.5) / losses for number in range(losses)]

    def fleet(crashed: bool, back: float) -> Fleet:
        lost = tuple(Loss(number, at, crashed, back) for number, at in enumerate(times))
        return Fleet(nodes, costs=MEASURED, losses=lost)

    whole = Fleet(nodes, costs=MEASURED)
    every = (whole, fleet(False, _MACHINE_S), fleet(True, _SOON_S), fleet(True, _MACHINE_S))
    return [made("losses", CHATS, one, 3.0) for one in every]


def run(case: Case, seed: int) -> Figures:
    rate, _, _ = LOADS[case.load]
    load: Load = (
        Chats(rate, case.seconds, spelled=False) if case.load == CHATS else Independent(rate, case.seconds, False)
    )
    return Simulation(case.fleet, seed, case.since).run(load, seed, case.seconds)
