"""What is simulated, by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scripts.bench.nodes.costs import MEASURED
from scripts.bench.nodes.fleet import Fleet, Loss, Simulation
from scripts.bench.nodes.seen import Figures
from scripts.bench.routing.requests import Chats, Independent, Load

CHATS, PROMPTS = "chats", "prompts"
LOADS: dict[str, tuple[float, float, float]] = {CHATS: (0.7, 20.0, 8.0), PROMPTS: (12.0, 10.0, 4.0)}
"""New conversations, or requests, per node and second; for so many seconds, of which the first are not counted."""

PER_ROUTER = {CHATS: 64, PROMPTS: 48}
"""Nodes, with half of its CPU to spare."""


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
        division = "" if fleet.routers == 1 else " by key" if fleet.by_key else " at random"
        return f"{self.part}: {fleet.nodes} nodes, {self.load}, routers: {fleet.routers}{division}"


def made(part: str, load: str, fleet: Fleet, times: float = 1.0) -> Case:
    _, seconds, since = LOADS[load]
    return Case(part, load, fleet, times * seconds, since)


def by_nodes(nodes: Sequence[int]) -> list[Case]:
    """As many routers as they need, a conversation at one of them."""
    return [
        made("nodes", load, Fleet(number, -(-number // PER_ROUTER[load]), costs=MEASURED))
        for load in LOADS
        for number in nodes
    ]


def of_one_router(nodes: Sequence[int]) -> list[Case]:
    """Until its CPU has no more time."""
    return [made("router", load, Fleet(number, costs=MEASURED)) for load in LOADS for number in nodes]


def by_routers(routers: Sequence[int], nodes: int) -> list[Case]:
    """What each does not see of the others: its CPU costs nothing here."""
    fleets = [
        Fleet(nodes, number, by_key=key) for number in routers for key in ((True, False) if number > 1 else (True,))
    ]
    return [made("routers", CHATS, fleet) for fleet in fleets]


def with_losses(nodes: int, losses: int) -> list[Case]:
    """None; machines that are gone; inference that fails by itself: one after the other, each back after a minute."""
    _, seconds, since = LOADS[CHATS]
    times = [since + (number + 0.5) * seconds / losses for number in range(losses)]

    def fleet(crashed: bool) -> Fleet:
        lost = tuple(Loss(number, at, crashed) for number, at in enumerate(times))
        return Fleet(nodes, costs=MEASURED, losses=lost)

    whole = Fleet(nodes, costs=MEASURED)
    return [made("losses", CHATS, one, 3.0) for one in (whole, fleet(False), fleet(True))]


def run(case: Case, seed: int) -> Figures:
    rate, _, _ = LOADS[case.load]
    load: Load = (
        Chats(rate, case.seconds, spelled=False) if case.load == CHATS else Independent(rate, case.seconds, False)
    )
    return Simulation(case.fleet, seed, case.since).run(load, seed, case.seconds)
