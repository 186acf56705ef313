"""Requests with texts, and when they come: independent ones, or conversations that are resent with every turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scripts.bench.serving.workload import recorded_lengths

Int32 = NDArray[np.int32]
Random = np.random.Generator

_WORDS = 4096
_MOST_TURNS = 64


def _spellings() -> list[str]:
    """Of the token ids: a space and up to 6 letters, about 4 bytes in the mean, as in English."""
    rng = np.random.default_rng(7)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    return [" " + "".join(rng.choice(letters, size)) for size in rng.binomial(6, 0.5, _WORDS)]


_SPELLINGS = _spellings()


@dataclass(eq=False, slots=True)
class Asked:
    """A request, and what became of it. Times in ms. `then`: what its client asks next, if this one ends
    then; None: nothing."""

    number: int
    arrival: float
    session: int
    prompt: Int32
    output: Int32  # what will be generated
    text: str
    then: Callable[[float], Asked | None] | None = None
    made: int = 0  # tokens so far
    cached: int = 0  # of the prompt, when it was first computed
    first: float = -1.0
    end: float = -1.0

    @property
    def limit(self) -> int:
        return len(self.prompt) + len(self.output)


Load = Callable[[int, int], Iterator[Asked]]
"""Requests in order of arrival, by number of replicas and seed; without those that follow others."""


@dataclass(frozen=True, slots=True)
class Independent:
    """Prompts that share nothing, with the lengths of llm-serving's task 1. `rate`: for each replica, in 1/s.
    `spelled`: as texts, too."""

    rate: float
    seconds: float
    spelled: bool = True

    def __call__(self, replicas: int, seed: int) -> Iterator[Asked]:
        rng, lengths = np.random.default_rng([seed, 1]), recorded_lengths("task1")
        chosen = rng.permutation(len(lengths))
        for number, at in enumerate(_arrivals(rng, self.rate * replicas, self.seconds)):
            prompt, output = lengths[chosen[number % len(chosen)]]
            words = _words(rng, prompt), _words(rng, output)
            yield _asked(number, at, number, *words, self.spelled)


@dataclass(frozen=True, slots=True)
class Closed:
    """All requests of llm-serving's task 1 at once, or by so many clients, each of which asks again at once."""

    clients: int | None = None

    def __call__(self, replicas: int, seed: int) -> Iterator[Asked]:
        rng, lengths = np.random.default_rng([seed, 2]), recorded_lengths("task1")
        left = [_asked(n, 0.0, n, _words(rng, a), _words(rng, b)) for n, (a, b) in enumerate(lengths)]
        left.reverse()

        def following(end: float) -> Asked | None:
            if not left:
                return None
            asked = left.pop()
            asked.arrival, asked.then = end, following
            return asked

        for _ in range(self.clients or len(left)):
            if (asked := following(0.0)) is not None:
                yield asked


@dataclass(frozen=True, slots=True)
class _Turn:
    asked: Int32
    answered: Int32
    pause: float  # ms, before the next one


@dataclass(frozen=True, slots=True)
class Chats:
    """Conversations: one of some system prompts, chosen by Zipf's law, then turns, each of which resends all that
    was said before. `rate` of new ones for each replica, in 1/s; lengths in tokens, pauses of clients in s. Nothing
    in a conversation depends on how fast it is served."""

    rate: float
    seconds: float
    systems: int = 8
    system_tokens: int = 1024
    turns: int = 8  # 1 to so many
    asked: int = 170  # mean of an exponential distribution, as are the next two
    answered: int = 130
    pause: float = 5.0
    spelled: bool = True

    def __call__(self, replicas: int, seed: int) -> Iterator[Asked]:
        rng = np.random.default_rng([seed, 3])
        systems = [_words(np.random.default_rng([seed, 4, i]), self.system_tokens) for i in range(self.systems)]
        shares = 1 / np.arange(1, self.systems + 1)
        for session, at in enumerate(_arrivals(rng, self.rate * replicas, self.seconds)):
            system = systems[int(rng.choice(self.systems, p=shares / shares.sum()))]
            turns = self._turns(np.random.default_rng([seed, 5, session]))
            yield _conversation(session, at, system, turns, 0, self.spelled)

    def _turns(self, rng: Random) -> list[_Turn]:
        def length(mean: float) -> int:
            return 1 + min(int(rng.exponential(mean)), 4 * int(mean))

        return [
            _Turn(
                _words(rng, length(self.asked)), _words(rng, length(self.answered)), rng.exponential(self.pause * 1e3)
            )
            for _ in range(rng.integers(1, self.turns + 1))
        ]


def _conversation(session: int, at: float, before: Int32, turns: list[_Turn], number: int, spelled: bool) -> Asked:
    turn = turns[number]
    prompt = np.concatenate([before, turn.asked])
    asked = _asked(session * _MOST_TURNS + number, at, session, prompt, turn.answered, spelled)
    if number + 1 < len(turns):
        said = np.concatenate([prompt, turn.answered])
        asked.then = lambda end: _conversation(session, end + turn.pause, said, turns, number + 1, spelled)
    return asked


def _asked(number: int, at: float, session: int, prompt: Int32, output: Int32, spelled: bool = True) -> Asked:
    text = "".join([_SPELLINGS[i] for i in prompt.tolist()]) if spelled else ""
    return Asked(number, at, session, prompt, output, text)


def _arrivals(rng: Random, rate: float, seconds: float) -> list[float]:
    """A Poisson process, in ms."""
    times: list[float] = np.cumsum(rng.exponential(1e3 / rate, max(1, int(rate * seconds)))).tolist()
    return times


def _words(rng: Random, count: int) -> Int32:
    return rng.integers(0, _WORDS, count, dtype=np.int32)
