"""Requests of all kinds, again and again, each answer compared with the one that came while nothing happened."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.runtime.weights import identify_folder
from scripts.lab.server import Server
from scripts.verify.everything.answers import differences
from scripts.verify.everything.asking import Asked, ask
from scripts.verify.everything.engines import Served
from scripts.verify.everything.kinds import Kind, Way, kinds, left_out
from scripts.verify.everything.margins import explain
from scripts.verify.survival.load import Tally
from scripts.verify.survival.ordeal import Ordeal
from scripts.verify.survival.weights import change

_SHOWN = 3  # differences of an answer


@dataclass(slots=True)
class Flip:
    """An answer that became another one."""

    kind: Kind
    wanted: list[Any]
    got: list[Any]
    why: list[str]


@dataclass(slots=True)
class MixedTally(Tally):
    """`lost_scores`: answers with scores of their prompts that failed with their front, as is documented."""

    by_kind: Counter[str] = field(default_factory=Counter)
    repeats: int = 0
    lost_scores: int = 0
    flips: Counter[str] = field(default_factory=Counter)  # that are near ties
    told: dict[str, str] = field(default_factory=dict)  # of each of these, the last one's margin
    weights: Counter[str] = field(default_factory=Counter)  # texts that name them
    mixed: int = 0  # texts that several weights have computed


class MixedLoad:
    """`run` keeps one request of each kind going until `stop`."""

    def __init__(
        self, server: Server, served: Served, mix: Sequence[Kind], expected: Sequence[Sequence[Any]],
        weights: set[str], plan: Ordeal,
    ) -> None:  # fmt: skip
        """`weights`: ids of all that there may be."""
        self.tally: MixedTally = MixedTally()
        self.live: dict[int, Asked] = {}  # streams alone: what comes at once shows no progress
        self.front_hit = False
        self._server, self._served, self._mix, self._expected = server, served, mix, expected
        self._weights = weights
        self._detached_s, self._seed = plan.detached_s, plan.seed
        self._stopping, self._flips = False, list[Flip]()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._repeat(i)) for i in range(len(self._mix))]

    async def stop(self) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)
        for one in self._flips:
            await self._explain(one)

    async def _repeat(self, i: int) -> None:
        rng = random.Random(f"{self._seed}/{i}")  # noqa: S311 - repeatable, not secret
        while not self._stopping:
            await self.once(i, rng)

    async def once(self, i: int, rng: random.Random) -> None:
        asked, kind = Asked(), self._mix[i]
        if kind.way is Way.STREAM:
            self.live[i] = asked
        await ask(self._server.port, kind, asked, self._detached_s, rng)
        self.live.pop(i, None)
        self.judge(i, asked)

    def judge(self, i: int, asked: Asked) -> None:
        kind, tally = self._mix[i], self.tally
        tally.streams += 1
        tally.tokens += len(asked.events)
        tally.returns += asked.returns
        tally.repeats += asked.repeats
        tally.by_kind[kind.name] += 1
        error = asked.error or error_of(asked.events)
        if error and kind.scored and (asked.lost or asked.dropped):
            tally.lost_scores += 1
            return
        if error:
            tally.wrong.append(f"{kind}: {error}")
            return
        tally.wrong += [f"{kind}: {why}" for why in self._wrong_weights(asked.events)]
        exact = self._served.exact or kind.deterministic
        if found := differences(self._expected[i], asked.events, 0.0 if exact else self._served.tolerance):
            one = Flip(kind, list(self._expected[i]), asked.events, found)
            if exact:
                tally.wrong.append(_told(one))
            else:
                self._flips.append(one)

    def _wrong_weights(self, events: Sequence[Any]) -> Iterator[str]:
        """What an answer says of the weights that have computed it."""
        for event in events:
            for text in (event.get("usage") or {}).get("weights", ()):
                starts, ids = [one["from"] for one in text], [one["id"] for one in text]
                self.tally.weights.update(ids)
                self.tally.mixed += len(text) > 1
                if starts[:1] != [0] or starts != sorted({*starts}) or not {*ids} <= self._weights:
                    yield f"its weights are {text}; there are {self._weights}"

    async def _explain(self, one: Flip) -> None:
        """A near tie, or a fault. Those of the same place are told once."""
        parting = await explain(self._server.port, one.kind, one.wanted, one.got)
        if parting is None:
            self.tally.wrong.append(f"{_told(one)}; no margin is known")
        elif not parting.near:
            self.tally.wrong.append(f"{_told(one)}; {parting.told}")
        else:
            place = f"{one.kind}, {parting.place}"
            self.tally.flips[place] += 1
            self.tally.told[place] = parting.told


def _told(one: Flip) -> str:
    more = f", and {len(one.why) - _SHOWN} more" if len(one.why) > _SHOWN else ""
    return f"{one.kind}: {'; '.join(one.why[:_SHOWN])}{more}"


def error_of(events: Sequence[Any]) -> str:
    """That a stream ended with."""
    for event in events[-2:]:
        for place in (event, event.get("response"), event.get("data")):
            if isinstance(place, dict) and (place.get("error") or place.get("finish_reason") == "predict_failed"):
                return json.dumps(place)
    return ""


async def mixed(plan: Ordeal, server: Server, served: Served, copies: int) -> MixedLoad:
    """The same answers for all weights that will be loaded. Raises ValueError when one fails."""
    if served.load_first:
        told = await change(server.base_url, served.folders[0])
        weights = {one["weights"] for one in told["replicas"]}
    else:
        weights = {identify_folder(folder) for folder in (served.config, *served.folders)}
    mix = kinds(plan.tokens, served.able, copies)
    print(
        f"{served.engine}: {len(mix)} kinds of requests; left out: {', '.join(left_out(served.able)) or 'none'}",
        flush=True,
    )
    asked = [Asked() for _ in mix]
    await asyncio.gather(
        *(ask(server.port, kind, one, plan.detached_s) for kind, one in zip(mix, asked, strict=True))
    )
    errors = {kind.name: one.error or error_of(one.events) for kind, one in zip(mix, asked, strict=True)}
    if wrong := [f"{kind}: {error}" for kind, error in errors.items() if error]:
        raise ValueError("; ".join(wrong))
    return MixedLoad(server, served, mix, [one.events for one in asked], weights, plan)
