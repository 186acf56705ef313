"""Requests of several API keys before one simulated replica (`scripts.bench.routing.replica`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from pipeline.wire.request import NOBODY, Owner
from scripts.bench.routing.clock import Clock
from scripts.bench.routing.replica import ASCEND, Listener, Replica
from scripts.bench.routing.requests import Asked as Simulated

MACHINE = replace(ASCEND, blocks=1024, token_budget=256, max_length=4096, prefix_cache=False)
"""configs/emulated_910b.yaml: Llama-2-7B on an Ascend 910B4."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: when it arrives, whose it is, and its tokens."""

    at_s: float
    key: int
    prompt: int
    output: int
    weight: float = 1.0
    priority: int = 0


@dataclass(slots=True)
class Seen:
    """Of one run. Times of first tokens are those since arrival; tokens are generated ones, with their times."""

    first_s: defaultdict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    tokens: defaultdict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    preemptions: int = 0

    def rate(self, key: int, begin_s: float, end_s: float) -> float:
        """Tokens per second."""
        times = np.array(self.tokens[key])
        return float(((times >= begin_s) & (times < end_s)).sum()) / (end_s - begin_s)


class Simulation(Listener):
    """`fair` false: all requests are of one key, as without keys."""

    def __init__(self, asked: Iterable[Asked], *, fair: bool) -> None:
        self._fair, self.seen = fair, Seen()
        self._clock, self._replica = Clock(), Replica(MACHINE, self)
        together = defaultdict[float, list[tuple[int, Asked]]](list)
        for number, one in enumerate(asked):
            together[one.at_s].append((number, one))
        for at_s, those in together.items():
            self._clock.at(1e3 * at_s, partial(self._arrive, those))

    def run(self, until_s: float) -> Seen:
        self._clock.run(1e3 * until_s)
        self.seen.preemptions = self._replica.preemptions
        return self.seen

    def _arrive(self, together: Sequence[tuple[int, Asked]]) -> None:
        """They may all be in the next step; each is a nanosecond younger than the one before."""
        now = self._clock.now
        for number, one in together:
            tokens = np.zeros(one.prompt, np.int32), np.zeros(one.output, np.int32)
            owner = Owner(one.key, one.weight, one.priority) if self._fair else NOBODY
            asked = Simulated(number, now, one.key, *tokens, "")
            self._replica.submit(asked, now + 1e-6 * (number + 0.5), owner=owner)
        self._advance()

    def _advance(self) -> None:
        if (ms := self._replica.advance()) is not None:
            self._clock.at(self._clock.now + ms, self._finish_step)

    def _finish_step(self) -> None:
        self._replica.finish_step(self._clock.now)
        self._advance()

    # ---- what the replica says --------------------------------------------------------------------------------

    def on_step(self, got: Sequence[Simulated]) -> None:
        now = self._clock.now
        for asked in got:
            self.seen.tokens[asked.session].append(now / 1e3)
            if asked.made == 1:
                self.seen.first_s[asked.session].append((now - asked.arrival) / 1e3)
