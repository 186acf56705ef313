"""Replicas behind one front, in simulated time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from scripts.bench.routing.clock import Clock
from scripts.bench.routing.policies import Make
from scripts.bench.routing.replica import ASCEND, Device, Listener, Replica
from scripts.bench.routing.requests import Asked, Load


@dataclass(frozen=True, slots=True)
class Death:
    """Of a replica, and when another one takes its place. Times in s."""

    replica: int
    at: float
    back: float


@dataclass(frozen=True, slots=True)
class Fleet:
    """`slowness`: of each replica; empty: all are equal."""

    replicas: int
    device: Device = ASCEND
    slowness: tuple[float, ...] = ()
    deaths: tuple[Death, ...] = ()


class Simulation(Listener):
    """One run. It hears what the front would hear, and tells the policy."""

    def __init__(self, fleet: Fleet, make: Make) -> None:
        self._fleet, self.policy = fleet, make(fleet.replicas, fleet.device)
        self._replicas = [self._new(number) for number in range(fleet.replicas)]
        self._up = list(range(fleet.replicas))
        self._clock = Clock()
        self._where: dict[int, int] = {}  # request → replica
        self.done: list[Asked] = []
        self.sent = [0] * fleet.replicas

    def run(self, load: Load, seed: int) -> Sequence[Asked]:
        """All requests, in the order in which they ended."""
        for asked in load(self._fleet.replicas, seed):
            self._arrive_later(asked)
        for death in self._fleet.deaths:
            self._clock.at(death.at * 1e3, partial(self._die, death.replica))
            self._clock.at(death.back * 1e3, partial(self._come_back, death.replica))
        self._clock.run()
        return self.done

    def _new(self, number: int) -> Replica:
        return Replica(self._fleet.device, self, self._fleet.slowness[number] if self._fleet.slowness else 1.0)

    def _arrive_later(self, asked: Asked) -> None:
        self._clock.at(asked.arrival, lambda: self._send(asked))

    def _send(self, asked: Asked) -> None:
        number = self.policy.send(asked, self._up)
        self._where[asked.number] = number
        self.sent[number] += 1
        self._replicas[number].submit(asked, self._clock.now)
        self._advance(number)

    def _advance(self, number: int) -> None:
        replica = self._replicas[number]
        if (ms := replica.advance()) is not None:
            self._clock.at(self._clock.now + ms, lambda: self._finish_step(number, replica))

    def _finish_step(self, number: int, replica: Replica) -> None:
        if self._replicas[number] is replica and number in self._up:
            replica.finish_step(self._clock.now)
            self._advance(number)

    # ---- deaths -----------------------------------------------------------------------------------------------

    def _die(self, number: int) -> None:
        """What was there goes on elsewhere, behind the tokens that its clients have."""
        self._up.remove(number)
        self.policy.on_down(number)
        for asked in self._replicas[number].aboard:
            self._send(asked)

    def _come_back(self, number: int) -> None:
        self._replicas[number] = self._new(number)
        self._up = sorted([*self._up, number])
        self.policy.on_up(number)

    # ---- what the front hears ---------------------------------------------------------------------------------

    def on_started(self, asked: Asked, cached_tokens: int) -> None:
        self.policy.on_started(asked, cached_tokens)

    def on_first_token(self, asked: Asked) -> None:
        self.policy.on_first_token(asked)

    def on_end(self, asked: Asked) -> None:
        self.policy.on_end(asked, self._where.pop(asked.number))
        self.done.append(asked)
        following = asked.then(self._clock.now) if asked.then else None
        if following is not None:
            self._arrive_later(following)


@dataclass(frozen=True, slots=True)
class Figures:
    """Times in ms; `hits`: share of the prompts' tokens that were in the cache."""

    ttft_p50: float
    ttft_p99: float
    tpot_p50: float
    tpot_p99: float
    tokens_s: float
    hits: float
    seconds: float  # from the first arrival to the last token

    @classmethod
    def of(cls, done: Sequence[Asked]) -> Figures:
        ttft = [asked.first - asked.arrival for asked in done]
        tpot = [(asked.end - asked.first) / (len(asked.output) - 1) for asked in done if len(asked.output) > 1]
        ms = max(asked.end for asked in done) - min(asked.arrival for asked in done)
        return cls(
            *_middle_and_end(ttft),
            *_middle_and_end(tpot),
            1e3 * sum(len(asked.output) for asked in done) / ms,
            sum(asked.cached for asked in done) / sum(len(asked.prompt) for asked in done),
            ms / 1e3,
        )


def _middle_and_end(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return math.nan, math.nan
    return float(np.percentile(values, 50)), float(np.percentile(values, 99))


def figures(fleet: Fleet, make: Make, load: Load, seed: int) -> Figures:
    return Figures.of(Simulation(fleet, make).run(load, seed))
