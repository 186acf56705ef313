"""What the emulated device answers, from nothing but the sequence: plain Python, no cache, no blocks.

Tests of a server predict its greedy text with it. ``_device.c`` computes the same incrementally.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .settings import EmulatedSettings

BEST, STEP_DOWN, RUNNERS_UP, END_OF_SEQUENCE = 10.0, 0.75, 7, 40.0
REST, NEVER = -30.0, -1e9  # the other tokens of the range; those that must not come at any temperature
_64 = 2**64 - 1


def expected_next_token(sequence: Sequence[int], settings: EmulatedSettings, adapter: int = 0) -> int:
    """The greedy token after ``sequence`` (prompt and output so far, not empty), with this adapter."""
    return _Context(settings, sequence, adapter).next_token()


def expected_tokens(prompt: Sequence[int], count: int, settings: EmulatedSettings, adapter: int = 0) -> list[int]:
    """The first ``count`` greedy tokens after ``prompt``; fewer if EOS, which is the last one then, comes."""
    context = _Context(settings, prompt, adapter)
    output: list[int] = []
    while len(output) < count and output[-1:] != [settings.eos_token_id]:
        output.append(context.next_token())
        context.append(output[-1])
    return output


def expected_logits(sequence: Sequence[int], settings: EmulatedSettings, adapter: int = 0) -> NDArray[np.float32]:
    """The logits ``[vocab]`` after ``sequence``."""
    row = base_logits(settings)
    for logit, token in _Context(settings, sequence, adapter).spikes():
        row[token] = logit
    return row


def base_logits(settings: EmulatedSettings) -> NDArray[np.float32]:
    """``[vocab]``: a row without its spikes."""
    base = np.full(settings.vocab_size, NEVER, np.float32)
    low, high = settings.chosen_range
    base[low:high] = REST
    if low <= settings.eos_token_id < high:
        base[settings.eos_token_id] = NEVER
    return base


class _Context:
    def __init__(self, settings: EmulatedSettings, sequence: Sequence[int], adapter: int) -> None:
        self._adapter = adapter
        self._low, self._span, self._eos, self._eos_threshold = settings.choice
        self._running = settings.seed
        self._sum = 0
        self._length = 0
        for token in sequence:
            self.append(token)

    def append(self, token: int) -> None:
        salted = token * 0x9E3779B97F4A7C15 + self._length * 0xD1B54A32D192ED03 + 1
        self._running = _mix(self._running + salted + self._adapter * 0x8CB92BA72F3D8DD7)
        self._sum += self._running * (2 * self._length + 1)
        self._length += 1

    def spikes(self) -> Iterator[tuple[float, int]]:
        """Logits and tokens; of those for the same token the last one counts."""
        answer = _mix(self._sum + self._running)
        for place in range(RUNNERS_UP, 0, -1):
            yield BEST - STEP_DOWN * place, self._token(_mix(answer + place))
        yield BEST, self._token(answer)
        if _mix(answer ^ 1) < self._eos_threshold:
            yield END_OF_SEQUENCE, self._eos

    def next_token(self) -> int:
        *_, (_, token) = self.spikes()
        return token

    def _token(self, answer: int) -> int:
        token = self._low + ((answer >> 32) * self._span >> 32)
        return token + (self._eos >= self._low and token >= self._eos)


def _mix(x: int) -> int:
    """SplitMix64's finalizer."""
    x &= _64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _64
    return x ^ (x >> 31)
