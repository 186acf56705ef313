"""What is simulated: loads and fleets, by name."""

from __future__ import annotations

from dataclasses import dataclass, replace

from scripts.bench.routing.policies import POLICIES, WEIGHTS
from scripts.bench.routing.replica import ASCEND
from scripts.bench.routing.requests import Chats, Closed, Independent, Load
from scripts.bench.routing.simulation import Death, Figures, Fleet, figures

MAKES = POLICIES | WEIGHTS
_TASK1 = replace(ASCEND, rows=128, blocks=1024)


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    fleet: Fleet
    load: Load
    policies: tuple[str, ...] = tuple(POLICIES)


def usual(replicas: int, seconds: float) -> list[Case]:
    loads: list[tuple[str, Load]] = [
        *((f"independent prompts, {rate:g}/s each", Independent(rate, seconds)) for rate in (10.0, 15.0)),
        *((f"chats, {rate:g} new ones/s each", Chats(rate, seconds)) for rate in (0.7, 1.1)),
    ]
    return [Case(f"{replicas} replicas, {name}", Fleet(replicas), load) for name, load in loads]


def unusual(seconds: float) -> list[Case]:
    half = seconds / 2
    return [
        Case(
            "4 replicas, an eviction storm: 32 system prompts, and room for half of them",
            Fleet(4, replace(ASCEND, blocks=1024)),
            Chats(0.25, 3 * seconds, systems=32),
        ),
        Case("4 replicas, one of half the speed", Fleet(4, slowness=(1.0, 1.0, 1.0, 2.0)), Chats(0.7, seconds)),
        Case(
            "4 replicas, one dies and comes back empty 10 s later",
            Fleet(4, deaths=(Death(1, half, half + 10),)),
            Chats(0.7, seconds),
        ),
    ]


def other_weights(seconds: float) -> list[Case]:
    chats = [Case(f"4 replicas, chats, {rate:g}/s", Fleet(4), Chats(rate, seconds)) for rate in (0.7, 1.1)]
    independent = Case("4 replicas, independent, 15/s", Fleet(4), Independent(15.0, seconds))
    return [replace(case, policies=tuple(WEIGHTS)) for case in (*chats, independent)]


def task1() -> list[Case]:
    """The load of `make bench-task1`, on so many devices."""
    return [
        Case(f"task 1 at once, {n} replicas", Fleet(n, _TASK1), Closed(), ("cost", "round robin")) for n in (1, 4)
    ]


def run(case: Case, policy: str, seed: int) -> Figures:
    return figures(case.fleet, MAKES[policy], case.load, seed)
