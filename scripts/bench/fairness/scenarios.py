"""What the greedy key and the modest one ask for, and what is made of what was seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from scripts.bench.fairness.simulation import Asked, Seen
from scripts.lab.goals import Goal

GREEDY, MODEST = 1, 2
ALONE, FAIR, FIFO = "alone", "shared", "first come"
ORDERS = (ALONE, FAIR, FIFO)
"""The modest key alone; both, with keys of their own; both, in order of arrival."""

_BEGIN_S = 2.0  # the modest one comes when the greedy one has been there for so long
_SETTLED_S = 3.0  # from when on rates are taken
MOST_LOST = 0.1
MOST_TIMES = 2.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """`heavy`: the modest key asks for as much as it can get, too: then its tokens are looked at, and not how long it
    waits behind its own requests."""

    name: str
    greedy: tuple[int, int]  # tokens of a prompt, from and to
    modest: tuple[int, int]
    greedy_requests: int = 1000
    heavy: bool = False

    def asked(self, order: str, until_s: float) -> list[Asked]:
        draw = np.random.default_rng(7)

        def ask(at_s: float, key: int, prompt: tuple[int, int], output: tuple[int, int]) -> Asked:
            return Asked(at_s, key, int(draw.integers(*prompt)), int(draw.integers(*output)))

        every = np.arange(_BEGIN_S, until_s - 1, 0.5)
        times = [_BEGIN_S] * 300 if self.heavy else (every + draw.uniform(0, 0.4, len(every))).tolist()
        modest = [ask(at_s, MODEST, self.modest, (64, 257) if self.heavy else (32, 97)) for at_s in times]
        greedy = [ask(0.0, GREEDY, self.greedy, (64, 257)) for _ in range(self.greedy_requests)]
        return modest if order == ALONE else [*greedy, *modest]


SCENARIOS = (
    Scenario("short prompts", (64, 257), (32, 65)),
    Scenario("prompts of a whole step", (64, 257), (256, 257)),
    Scenario("long prompts of the greedy one", (2000, 3001), (64, 257)),
    Scenario("both greedy", (64, 257), (64, 257), heavy=True),
)


@dataclass(frozen=True, slots=True)
class Row:
    """Times in ms, rates in tokens per second. None: it got none."""

    scenario: str
    order: str
    requests: int  # of the modest key, that got a first token
    first_p50_ms: float | None
    first_p95_ms: float | None
    modest_rate: float
    greedy_rate: float
    preemptions: int | None

    @classmethod
    def of(cls, scenario: Scenario, order: str, seen: Seen, until_s: float) -> Row:
        first = np.array(seen.first_s[MODEST]) * 1e3
        middle, late = (float(np.percentile(first, part)) if len(first) else None for part in (50, 95))
        modest, greedy = (seen.rate(key, _SETTLED_S, until_s) for key in (MODEST, GREEDY))
        return cls(scenario.name, order, len(first), middle, late, modest, greedy, seen.preemptions)

    def told(self) -> dict[str, Any]:
        return asdict(self)


Run = Callable[[Scenario, str, float], Seen]


def measure(run: Run, scenarios: Sequence[Scenario], until_s: float) -> list[Row]:
    return [Row.of(one, order, run(one, order, until_s), until_s) for one in scenarios for order in ORDERS]


def goals(rows: Sequence[Row], scenarios: Sequence[Scenario]) -> list[Goal]:
    by_order = {(row.scenario, row.order): row for row in rows}
    made: list[Goal] = []
    for scenario in scenarios:
        alone, fair = by_order[scenario.name, ALONE], by_order[scenario.name, FAIR]
        if scenario.heavy:
            half = (fair.modest_rate + fair.greedy_rate) / 2
            lost = 1 - fair.modest_rate / half if half else None
            made.append(Goal(f"{scenario.name}: part of its half of the tokens that is lost", lost, MOST_LOST, ""))
        else:
            times = fair.first_p50_ms / alone.first_p50_ms if fair.first_p50_ms and alone.first_p50_ms else None
            made.append(
                Goal(f"{scenario.name}: first token, beside that alone (medians)", times, MOST_TIMES, "times")
            )
            less = 1 - fair.modest_rate / alone.modest_rate
            made.append(Goal(f"{scenario.name}: part of the tokens it had alone that is lost", less, MOST_LOST, ""))
    return made
