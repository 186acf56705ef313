"""The server's router, and the rules that others have. All of them know what a front knows, and nothing else."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from hashlib import blake2b

from pipeline.front.delivery.routing.prefixes import Chain, Holders, Prefixes, chain_of
from pipeline.front.delivery.routing.router import Router, Weights
from scripts.bench.routing.replica import Device
from scripts.bench.routing.requests import Asked


class Policy(ABC):
    """Counts the requests that are on each replica."""

    def __init__(self, replicas: int) -> None:
        self.requests = [0] * replicas
        self._random = random.Random(replicas)  # noqa: S311 - draws that can be repeated

    def send(self, asked: Asked, up: Sequence[int]) -> int:
        chosen = self.choose(asked, up)
        self.requests[chosen] += 1
        return chosen

    @abstractmethod
    def choose(self, asked: Asked, up: Sequence[int]) -> int: ...

    def least(self, replicas: Sequence[int]) -> int:
        """With the fewest requests; among equals any."""
        return min(replicas, key=lambda number: (self.requests[number], self._random.random()))

    def on_started(self, asked: Asked, cached_tokens: int) -> None:  # noqa: B027 - most do not care
        """It has a row."""

    def on_first_token(self, asked: Asked) -> None:  # noqa: B027
        """Of those that come from this replica."""

    def on_end(self, asked: Asked, replica: int) -> None:
        self.requests[replica] -= 1

    def on_down(self, replica: int) -> None:
        self.requests[replica] = 0

    def on_up(self, replica: int) -> None:  # noqa: B027
        """It is empty."""


class RoundRobin(Policy):
    _turn = -1

    def choose(self, asked: Asked, up: Sequence[int]) -> int:
        self._turn += 1
        return up[self._turn % len(up)]


class LeastRequests(Policy):
    def choose(self, asked: Asked, up: Sequence[int]) -> int:
        return self.least(up)


class PowerOfTwo(Policy):
    """The less loaded of two that are drawn."""

    def choose(self, asked: Asked, up: Sequence[int]) -> int:
        return self.least(self._random.sample(up, min(2, len(up))))


class BoundedHash(Policy):
    """Consistent hashing with bounded loads: the first in the key's own order with less than 1.25 times its share."""

    def __init__(self, replicas: int, key: Callable[[Asked], object]) -> None:
        super().__init__(replicas)
        self._key = key

    def choose(self, asked: Asked, up: Sequence[int]) -> int:
        key = self._key(asked)
        order = sorted(up, key=lambda number: blake2b(repr((key, number)).encode(), digest_size=8).digest())
        bound = 1.25 * (sum(self.requests) + 1) / len(up)
        return next((number for number in order if self.requests[number] < bound), order[0])


def by_session(asked: Asked) -> object:
    return asked.session


def by_prefix(asked: Asked) -> object:
    """256 tokens of text, about."""
    return asked.text[:1024]


class CacheAware(Policy):
    """SGLang's: the longest match, if it is above 0.3 of the prompt, else the fewest requests; those, too, where the
    numbers of requests differ by more than `absolute` and by more than 1.5 times. Its tree forgets nothing here."""

    def __init__(self, replicas: int, absolute: int) -> None:
        super().__init__(replicas)
        self._absolute, self._time = absolute, 0
        self._holders = Holders()
        self._trees = [Prefixes(1 << 30, self._holders, 1 << number) for number in range(replicas)]

    def choose(self, asked: Asked, up: Sequence[int]) -> int:
        chain = chain_of(asked.text.encode())
        chosen = self._chosen(chain, up)
        self._time += 1
        self._trees[chosen].use(chain, self._time)
        return chosen

    def _chosen(self, chain: Chain, up: Sequence[int]) -> int:
        loads = [self.requests[number] for number in up]
        if max(loads) - min(loads) > self._absolute and max(loads) > 1.5 * min(loads):
            return self.least(up)
        for blocks, bits in reversed(self._holders.matches(chain)):
            if (having := [number for number in up if bits >> number & 1]) and blocks > 0.3 * len(chain):
                return having[0]
        return self.least(up)

    def on_down(self, replica: int) -> None:
        super().on_down(replica)
        self._trees[replica].clear()


class Cost(Policy):
    """The server's own router."""

    def __init__(self, replicas: int, weights: Weights, cached_tokens: int) -> None:
        super().__init__(replicas)
        self.router = Router(replicas, weights, cached_tokens=cached_tokens)

    def choose(self, asked: Asked, up: Sequence[int]) -> int:
        choice = self.router.pick(asked.text, up, output=asked.made)
        assert choice is not None
        self.router.sent(choice, [asked.number])
        self.router.accepted(asked.number, len(asked.prompt))
        return choice.replica

    def on_started(self, asked: Asked, cached_tokens: int) -> None:
        self.router.started(asked.number, cached_tokens)

    def on_first_token(self, asked: Asked) -> None:
        self.router.prefilled(asked.number)

    def on_end(self, asked: Asked, replica: int) -> None:
        super().on_end(asked, replica)
        self.router.finished(asked.number, asked.made)

    def on_down(self, replica: int) -> None:
        super().on_down(replica)
        self.router.replica_down(replica)

    def on_up(self, replica: int) -> None:
        self.router.replica_up(replica)


Make = Callable[[int, Device], Policy]


def cost(weights: Weights | None = None) -> Make:
    """With these weights, else those that a server has before it has measured its own."""

    def make(replicas: int, device: Device) -> Policy:
        return Cost(replicas, weights or Weights(rows=device.rows), device.blocks * device.block_size)

    return make


POLICIES: dict[str, Make] = {
    "round robin": lambda n, _: RoundRobin(n),
    "least requests": lambda n, _: LeastRequests(n),
    "power of two choices": lambda n, _: PowerOfTwo(n),
    "hash of the first 1024 bytes, bounded": lambda n, _: BoundedHash(n, by_prefix),
    "hash of the session, bounded": lambda n, _: BoundedHash(n, by_session),
    "SGLang's cache-aware": lambda n, _: CacheAware(n, 64),
    "the same, 8 in place of 64": lambda n, _: CacheAware(n, 8),
    "cost": cost(),
}

WEIGHTS: dict[str, Make] = {
    "cost": cost(),
    "cost, a CPU's weights": cost(Weights(row=0.3, turn=1.8)),
    "cost, a quarter of the weights": cost(Weights(row=0.7 / 4, turn=8 / 4)),
    "cost, four times the weights": cost(Weights(row=0.7 * 4, turn=8 * 4)),
    "cost, backlog of prompts alone": cost(Weights(row=0, turn=0)),
}
"""How much depends on them."""
