"""Which replica gets a request: the one where it is likely to have its first token soonest.

Everything is in one currency, tokens of prefill: what is missing there of the request's prompt, what waits there to
be computed before it, something for each request that is there, and more for each that has to wait for a row. Backlog
and cache are weighed against each other: a warm cache attracts requests until its queue costs more than a cold one.
Where nothing is shared, it is the replica with the fewest requests.

The router knows what its front knows: what was sent where and what came back; not what other fronts send. It has no
clock, does no I/O, and draws nothing: the same calls give the same choices.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from pipeline.front.delivery.prefixes import BLOCK_BYTES, Chain, Prefixes, chain_of

_ID_BYTES = 4
_ANSWER = 128.0  # tokens, before there were any
_SLOWEST = 1 / 32  # share of a new value in a mean, at least
_KV_BLOCK = 16  # tokens: an engine caches full blocks only, so it may have so many less than was sent
MOST_BLOCKS = 1 << 17
"""That are remembered of all replicas: at most some 24 MB, see `ENTRY_BYTES`."""


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

    def __init__(self, choice: Choice, prompt: Prompt, replica: _Replica, time: int, *, first: bool) -> None:
        self.choice, self.prompt, self.replica, self.time, self.first = choice, prompt, replica, time, first
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


class _Replica:
    __slots__ = ("prefixes", "requests", "up", "waiting", "waiting_times")

    def __init__(self, blocks: int) -> None:
        self.up = True
        self.prefixes = Prefixes(blocks)
        self.clear()

    def clear(self) -> None:
        self.prefixes.clear()
        self.requests = 0
        self.waiting = 0  # tokens of prefill
        self.waiting_times = Counter[int]()  # uses of prompts that are not computed → requests

    def backlog(self, weights: Weights, answer: float) -> float:
        """What delays one more request, if answers have so many tokens."""
        queued = max(0, self.requests + 1 - weights.rows)
        return self.waiting + answer * (weights.row * self.requests + weights.turn * queued)

    def add(self, sent: _Sent) -> None:
        self.requests += 1
        self.waiting += sent.missing
        self.waiting_times[sent.time] += 1

    def no_longer_waits(self, sent: _Sent) -> None:
        sent.waits = False
        self.waiting -= sent.missing
        self.waiting_times[sent.time] -= 1
        if not self.waiting_times[sent.time]:
            del self.waiting_times[sent.time]


class Router:
    """`pick`, then `sent` for what was really sent. Of each request that was sent, in this order, if ever:
    `accepted`, `started`, `prefilled`; and `finished` in any case, unless its replica goes down before. What is said
    of requests that are not known is ignored. With one replica nothing is hashed or remembered.

    `cached_tokens`: what the prefix cache of a replica holds at most."""

    def __init__(self, replicas: int, weights: Weights, *, cached_tokens: int = 1 << 20) -> None:
        blocks = min(MOST_BLOCKS // replicas, max(1, cached_tokens * _ID_BYTES // BLOCK_BYTES))
        self.weights = weights
        self._replicas = [_Replica(blocks) for _ in range(replicas)]
        self._sent: dict[int, _Sent] = {}
        self._time = 0  # counts uses of prompts
        self._turn = 0  # who is first among equals
        self._bytes_per_token = _Mean(4.0)  # of text
        self._answer = _Mean(_ANSWER)  # tokens

    def pick(
        self, prompt: str | bytes, allowed: Container[int] | None = None, *, root: str = "", output: int = 0
    ) -> Choice | None:
        """One of the allowed replicas (None: all) that are up; None if there is none. `prompt`: a text, or token ids
        as int32; `root`: the adapter; `output`: tokens that it has got already, if it is resumed."""
        replicas = self._replicas
        in_turn = chain(range(self._turn, len(replicas)), range(self._turn))
        able = [number for number in in_turn if replicas[number].up and (allowed is None or number in allowed)]
        if len(replicas) == 1 or not able:
            return Choice(0) if able else None
        is_text = isinstance(prompt, str)
        octets = prompt.encode(errors="surrogatepass") if isinstance(prompt, str) else prompt
        return self._cheapest(able, Prompt(len(octets), chain_of(octets, root), is_text, output))

    def _cheapest(self, able: Sequence[int], prompt: Prompt) -> Choice:
        """Of equals the first."""
        tokens = prompt.output + int(prompt.octets / (self._bytes_per_token.value if prompt.is_text else _ID_BYTES))
        weights, answer, blocks = self.weights, self._answer.value, prompt.chain
        least, best, most = math.inf, able[0], 0
        for number in able:
            replica = self._replicas[number]
            matched = replica.prefixes.match(blocks) if blocks else 0
            price = replica.backlog(weights, answer) - (prompt.cached_tokens(matched, tokens) if matched else 0)
            if price < least:
                least, best, most = price, number, matched
        self._turn = (best + 1) % len(self._replicas)
        time = self._replicas[best].prefixes.last_use(blocks[most - 1]) if most else 0
        return Choice(best, tokens, prompt.cached_tokens(most, tokens), prompt, most, time)

    # ---- what became of it ------------------------------------------------------------------------------------

    def sent(self, choice: Choice, requests: Iterable[int]) -> None:
        """These, of one prompt, are on their way to the chosen replica."""
        prompt, replica = choice.prompt, self._replicas[choice.replica]
        if prompt is None:
            return
        self._time += 1
        for number, request in enumerate(requests):
            self.finished(request)  # of an earlier attempt
            self._sent[request] = sent = _Sent(choice, prompt, replica, self._time, first=not number)
            replica.add(sent)
        replica.prefixes.use(prompt.chain, self._time)

    def accepted(self, request: int, prompt_tokens: int) -> None:
        """The prompt has so many tokens."""
        sent = self._sent.get(request)
        if sent is None or not sent.waits:
            return
        prompt = sent.prompt
        if prompt.is_text and prompt_tokens:
            self._bytes_per_token.add(max(prompt.octets, 1) / prompt_tokens)
        tokens = prompt_tokens + prompt.output
        self._correct(sent, tokens, prompt.cached_tokens(sent.choice.matched, tokens))

    def started(self, request: int, cached_tokens: int) -> None:
        """It has a row, and so much of its prompt was in the cache. If that is much less than expected, though the
        prompts before it were computed, the replica has evicted it, and all that was used before."""
        sent = self._sent.get(request)
        if sent is None or not sent.waits:
            return
        matched, time, expected = sent.choice.matched, sent.choice.matched_time, sent.cached
        self._correct(sent, sent.tokens, cached_tokens)
        if matched and time not in sent.replica.waiting_times and cached_tokens < 3 * expected // 4 - _KV_BLOCK:
            sent.replica.prefixes.forget_evicted(time)

    def _correct(self, sent: _Sent, tokens: int, cached: int) -> None:
        sent.replica.waiting -= sent.missing
        sent.tokens, sent.cached = tokens, cached
        sent.replica.waiting += sent.missing

    def prefilled(self, request: int) -> None:
        """Its first token is there."""
        sent = self._sent.get(request)
        if sent is not None and sent.waits:
            sent.replica.no_longer_waits(sent)

    def finished(self, request: int, output_tokens: int = 0) -> None:
        """It has ended, in whatever way, with so many tokens. Its blocks are the last that its replica would evict;
        if there was no token, they may never have been computed."""
        sent = self._sent.pop(request, None)
        if sent is None:
            return
        if output_tokens:
            self._answer.add(output_tokens)
        blocks, replica = sent.prompt.chain, sent.replica
        replica.requests -= 1
        if not sent.waits:
            self._time += 1
            replica.prefixes.use(blocks, self._time)
            return
        replica.no_longer_waits(sent)
        if sent.time not in replica.waiting_times:
            replica.prefixes.forget_unused(blocks[sent.choice.matched :], sent.time)

    # ---- replicas ---------------------------------------------------------------------------------------------

    def replica_down(self, replica: int) -> list[int]:
        """It is not picked any more, and has nothing in its cache. Returns the requests that were there, in the order
        in which they were sent; they are forgotten."""
        self._replicas[replica].up = False
        self._replicas[replica].clear()
        lost = [request for request, sent in self._sent.items() if sent.choice.replica == replica]
        for request in lost:
            del self._sent[request]
        return lost

    def replica_up(self, replica: int) -> None:
        self._replicas[replica].up = True
