"""Which replica gets a request: the one where it is likely to have its first token soonest.

Everything is in one currency, tokens of prefill: what is missing there of the request's prompt, what waits there to
be computed before it, something for each request that is there, and more for each that has to wait for a row. Backlog
and cache are weighed against each other: a warm cache attracts requests until its queue costs more than a cold one.
Where nothing is shared, it is the replica with the fewest requests.

The router knows what its front knows: what was sent where and what came back, and how many requests of other routers
a node says that it has. It has no clock, does no I/O, and draws nothing: the same calls give the same choices.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.front.delivery.routing.prefixes import BLOCK_BYTES, Chain, Holders, Prefixes, chain_of

Float64: TypeAlias = NDArray[np.float64]

_ID_BYTES = 4
_ANSWER = 128.0  # tokens, before there were any
_SLOWEST = 1 / 32  # share of a new value in a mean, at least
_KV_BLOCK = 16  # tokens: an engine caches full blocks only, so it may have so many less than was sent
MOST_BLOCKS, LEAST_BLOCKS = 1 << 17, 1 << 10
"""That are remembered of all replicas, and of each where these are very many; of `ENTRY_BYTES` each."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What delays a request, in tokens of prefill for each token of an answer. The defaults are an Ascend 910B4's
    with a 7B model; those of a device in use follow from its steps (`StepCost.weights`)."""

    row: float = 0.7  # each request that is there
    turn: float = 8.0  # each that waits for a row
    rows: int = 32  # of a replica


@dataclass(frozen=True, slots=True)
class Prompt:
    """As the router sees it."""

    octets: int
    chain: Chain
    is_text: bool
    output: int  # tokens that were generated before, and are computed again

    def cached_tokens(self, blocks: int, tokens: int) -> int:
        """Of so many in all, if its first blocks are cached: all but one at most."""
        return min(blocks * BLOCK_BYTES * (tokens - self.output) // max(self.octets, 1), max(tokens - 1, 0))


@dataclass(frozen=True, slots=True)
class Choice:
    """Of a replica for one prompt."""

    replica: int
    tokens: int = 0  # of the prompt, about
    expected_cached: int = 0  # of them
    prompt: Prompt | None = None  # None: there is no choice
    matched: int = 0  # blocks
    matched_time: int = 0  # when the last of those was used


class _Sent:
    """A request on a replica. The first of those that share a prompt computes it for all."""

    __slots__ = ("cached", "choice", "first", "prompt", "replica", "time", "tokens", "waits")

    def __init__(self, choice: Choice, prompt: Prompt, time: int, *, first: bool) -> None:
        self.choice, self.prompt, self.replica, self.time, self.first = choice, prompt, choice.replica, time, first
        self.tokens, self.cached = choice.tokens, choice.expected_cached  # corrected by what comes back
        self.waits = True  # for its first token

    @property
    def missing(self) -> int:
        return max(self.tokens - self.cached, 1) if self.first else 0


class _Mean:
    """Of values that came, the newer ones more. `first` counts as one of them."""

    __slots__ = ("count", "value")

    def __init__(self, first: float) -> None:
        self.value, self.count = first, 1

    def add(self, value: float) -> None:
        self.count += 1
        self.value += max(_SLOWEST, 1 / self.count) * (value - self.value)


class _Loads:
    """What is there of requests, `[replicas]`: one more replica costs a choice nanoseconds."""

    def __init__(self, replicas: int) -> None:
        self.requests = np.zeros(replicas, np.int64)
        self.others = np.zeros(replicas, np.int64)  # requests of other fronts, as the replicas' nodes say
        self._waiting = np.zeros(replicas, np.int64)  # tokens of prefill
        self._waiting_times = [Counter[int]() for _ in range(replicas)]  # uses of prompts not computed → requests

    def clear(self, replica: int) -> None:
        self.requests[replica] = self.others[replica] = self._waiting[replica] = 0
        self._waiting_times[replica].clear()

    def backlog(self, weights: Weights, answer: float) -> Float64:
        """What delays one more request, if answers have so many tokens."""
        requests = self.requests + self.others
        queued = np.maximum(requests + (1 - weights.rows), 0)
        return self._waiting + answer * (weights.row * requests + weights.turn * queued)

    def waits(self, replica: int, time: int) -> bool:
        """A prompt that was used then is not computed yet."""
        return time in self._waiting_times[replica]

    def add(self, sent: _Sent) -> None:
        self.requests[sent.replica] += 1
        self._waiting[sent.replica] += sent.missing
        self._waiting_times[sent.replica][sent.time] += 1

    def correct(self, sent: _Sent, tokens: int, cached: int) -> None:
        before = sent.missing
        sent.tokens, sent.cached = tokens, cached
        self._waiting[sent.replica] += sent.missing - before

    def no_longer_waits(self, sent: _Sent) -> None:
        sent.waits = False
        self._waiting[sent.replica] -= sent.missing
        times = self._waiting_times[sent.replica]
        times[sent.time] -= 1
        if not times[sent.time]:
            del times[sent.time]


class Router:
    """`pick`, then `sent` for what was really sent. Of each request that was sent, in this order, if ever:
    `accepted`, `started`, `prefilled`; and `finished` in any case, unless its replica goes down before. What is said
    of requests that are not known is ignored. With one replica nothing is hashed or remembered.

    `cached_tokens`: what the prefix cache of a replica holds at most. `first`: among equals, at first; routers before
    the same nodes had better begin at different ones."""

    def __init__(self, replicas: int, weights: Weights, *, cached_tokens: int = 1 << 20, first: int = 0) -> None:
        most = min(max(MOST_BLOCKS // replicas, LEAST_BLOCKS), max(1, cached_tokens * _ID_BYTES // BLOCK_BYTES))
        self.weights = weights
        self._replicas = replicas
        self._loads = _Loads(replicas)
        self._holders = Holders()
        self._prefixes = [Prefixes(most, self._holders, 1 << number) for number in range(replicas)]
        self._down = np.zeros(replicas)  # infinite where it is
        self._sent: dict[int, _Sent] = {}
        self._time = 0  # counts uses of prompts
        self._turn = first  # among equals
        self._bytes_per_token = _Mean(4.0)  # of text
        self._answer = _Mean(_ANSWER)  # tokens

    def pick(
        self,
        prompt: str | bytes,
        allowed: Collection[int] | None = None,
        *,
        without: Collection[int] = (),
        root: str = "",
        output: int = 0,
    ) -> Choice | None:
        """One of the allowed replicas (None: all) that are up, and not in `without`; None if there is none. `prompt`:
        a text, or token ids as int32; `root`: prompts with another one share nothing with it; `output`: tokens that
        it has got already, if it is resumed."""
        barred = self._barred(allowed, without)
        if self._replicas == 1:
            return None if barred[0] else Choice(0)
        is_text = isinstance(prompt, str)
        octets = prompt.encode(errors="surrogatepass") if isinstance(prompt, str) else prompt
        return self._choose(barred, Prompt(len(octets), chain_of(octets, root), is_text, output))

    def _barred(self, allowed: Collection[int] | None, without: Collection[int]) -> Float64:
        """`[replicas]`: infinite where a request must not go, else 0."""
        if allowed is None and not without:
            return self._down
        barred = self._down.copy() if allowed is None else np.full(self._replicas, math.inf)
        if allowed is not None:
            numbers = list(allowed)
            barred[numbers] = self._down[numbers]
        barred[list(without)] = math.inf
        return barred

    def _choose(self, barred: Float64, prompt: Prompt) -> Choice | None:
        """The cheapest."""
        tokens = prompt.output + int(prompt.octets / (self._bytes_per_token.value if prompt.is_text else _ID_BYTES))
        matches, blocks = self._holders.matches(prompt.chain), prompt.chain
        prices = self._loads.backlog(self.weights, self._answer.value) + barred
        best = self._first_of_least(prices - self._cached_tokens(prompt, matches, tokens) if matches else prices)
        if best is None:
            return None
        most = next((count for count, bits in reversed(matches) if bits >> best & 1), 0)
        time = self._prefixes[best].last_use(blocks[most - 1]) if most else 0
        return Choice(best, tokens, prompt.cached_tokens(most, tokens), prompt, most, time)

    def _cached_tokens(self, prompt: Prompt, matches: Sequence[tuple[int, int]], tokens: int) -> Float64:
        """Of the prompt, `[replicas]`."""
        cached, octets = np.zeros(self._replicas), -(-self._replicas // 8)
        for blocks, bits in matches:
            value = prompt.cached_tokens(blocks, tokens)
            if bits & (bits - 1):
                packed = np.frombuffer(bits.to_bytes(octets, "little"), np.uint8)
                cached[np.unpackbits(packed, count=self._replicas, bitorder="little").view(np.bool_)] = value
            else:
                cached[bits.bit_length() - 1] = value
        return cached

    def _first_of_least(self, prices: Float64) -> int | None:
        """Of equals the next one in turn; none if all are barred."""
        turn = self._turn
        best = turn + int(prices[turn:].argmin())
        if turn and prices[first := int(prices[:turn].argmin())] < prices[best]:
            best = first
        if prices[best] == math.inf:
            return None
        self._turn = (best + 1) % self._replicas
        return best

    # ---- what became of it ------------------------------------------------------------------------------------

    def sent(self, choice: Choice, requests: Sequence[int]) -> None:
        """These, of one prompt, are on their way to the chosen replica."""
        prompt = choice.prompt
        if prompt is None:
            return
        for request in requests:
            self.finished(request)  # an earlier attempt
        self._time += 1
        for number, request in enumerate(requests):
            self._sent[request] = sent = _Sent(choice, prompt, self._time, first=not number)
            self._loads.add(sent)
        self._prefixes[choice.replica].use(prompt.chain, self._time)

    def accepted(self, request: int, prompt_tokens: int) -> None:
        """The prompt has so many tokens."""
        sent = self._sent.get(request)
        if sent is None or not sent.waits:
            return
        prompt = sent.prompt
        if prompt.is_text and prompt_tokens:
            self._bytes_per_token.add(max(prompt.octets, 1) / prompt_tokens)
        tokens = prompt_tokens + prompt.output
        self._loads.correct(sent, tokens, prompt.cached_tokens(sent.choice.matched, tokens))

    def started(self, request: int, cached_tokens: int, *, tells: bool = True) -> None:
        """It has a row, and so much of its prompt was in the cache. If that is much less than expected, though the
        prompts before it were computed, the replica has evicted it, and all that was used before. `tells`: false if
        it would not have used what is cached."""
        sent = self._sent.get(request)
        if sent is None or not sent.waits:
            return
        matched, time, expected = sent.choice.matched, sent.choice.matched_time, sent.cached
        self._loads.correct(sent, sent.tokens, cached_tokens)
        evicted = tells and matched and cached_tokens < 3 * expected // 4 - _KV_BLOCK
        if evicted and not self._loads.waits(sent.replica, time):
            self._prefixes[sent.replica].forget_evicted(time)

    def prefilled(self, request: int) -> None:
        """Its first token is there."""
        sent = self._sent.get(request)
        if sent is not None and sent.waits:
            self._loads.no_longer_waits(sent)

    def finished(self, request: int, output_tokens: int = 0) -> None:
        """It has ended, in whatever way, with so many tokens. Its blocks are the last that its replica would evict;
        if there was no token, they may never have been computed."""
        sent = self._sent.pop(request, None)
        if sent is None:
            return
        if output_tokens:
            self._answer.add(output_tokens)
        blocks, replica = sent.prompt.chain, sent.replica
        self._loads.requests[replica] -= 1
        if not sent.waits:
            self._time += 1
            self._prefixes[replica].use(blocks, self._time)
            return
        self._loads.no_longer_waits(sent)
        if not self._loads.waits(replica, sent.time):
            self._prefixes[replica].forget_unused(blocks[sent.choice.matched :], sent.time)

    def is_full(self, replica: int) -> bool:
        """It has as many requests as rows."""
        return bool(self._loads.requests[replica] + self._loads.others[replica] >= self.weights.rows)

    def elsewhere(self, replica: int, requests: int) -> None:
        """So many requests that other routers have sent are there."""
        self._loads.others[replica] = requests

    # ---- replicas ---------------------------------------------------------------------------------------------

    def replica_down(self, replica: int) -> list[int]:
        """It is not picked any more, and has nothing in its cache. Returns the requests that were there, in the order
        in which they were sent; they are forgotten."""
        self._down[replica] = math.inf
        self._loads.clear(replica)
        self._prefixes[replica].clear()
        lost = [request for request, sent in self._sent.items() if sent.replica == replica]
        for request in lost:
            del self._sent[request]
        return lost

    def replica_up(self, replica: int) -> None:
        self._down[replica] = 0
