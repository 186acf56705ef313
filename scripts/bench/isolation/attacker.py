"""The attacker's process. What it sends is made before it is sent."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import resource
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

from scripts.bench.isolation.attacks import Field, Pace, Sent
from scripts.bench.isolation.kinds import BY_NAME
from scripts.bench.isolation.stands import Facts
from scripts.lab.workers import answer_each

_PREPARE_S = 120.0  # 64 long prompts have to be read by the server


@dataclass(frozen=True, slots=True)
class Order:
    """`pace` None: as fast as answers come."""

    kind: str
    facts: Facts
    port: int
    seconds: float
    pace: Pace | None = None


@dataclass(frozen=True, slots=True)
class Campaign:
    """What was sent, from when until when by the monotonic clock."""

    begin_s: float
    end_s: float
    sent: tuple[Sent, ...]

    @property
    def pace(self) -> Pace:
        """When each client sent each request, for sending the same again."""
        every: dict[int, list[float]] = {}
        for sent in sorted(self.sent, key=lambda sent: sent.begin_s):
            every.setdefault(sent.client, []).append(sent.begin_s - self.begin_s)
        return [every.get(client, []) for client in range(max(every, default=-1) + 1)]


class AttackError(Exception):
    """An attack could not be prepared."""


def serve_attacker(pipe: Connection) -> None:
    """An `Order`, answered with "prepared" or an AttackError; "go", answered with a `Campaign`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)) if hard > 0 else 4096, hard))
    answer_each(pipe, lambda order: asyncio.run(_obey(pipe, order)))


@functools.lru_cache(maxsize=1)
def _requests(kind: str, facts: Facts) -> tuple[bytes, ...]:
    return BY_NAME[kind].requests(facts)


async def _obey(pipe: Connection, order: Order) -> None:
    attack = BY_NAME[order.kind].attack
    field = Field(order.port, _requests(order.kind, order.facts), order.pace)
    gc.collect()
    try:
        try:
            async with asyncio.timeout(_PREPARE_S):
                await attack.prepare(field)
        except OSError as error:  # time-outs, too
            return pipe.send(AttackError(f"{order.kind}: could not be prepared: {error!r}"))
        pipe.send("prepared")
        await asyncio.to_thread(pipe.recv)
        begin_s = field.begin_s = time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(order.seconds):
                await attack.run(field)
                await asyncio.Event().wait()  # all sent that the pace has: as long as the attack took
    finally:
        field.close()
    return pipe.send(Campaign(begin_s, time.monotonic(), tuple(field.sent)))
