"""What all processes of a stress run agree on."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Literal

Kind = Literal["slot", "byte", "broadcast", "evict", "end"]
"""The last two: broadcast rings whose readers die, by what that does (deaths.py)."""

WAIT_S = 60.0
"""A wait this long is a hang."""


@dataclass(frozen=True, slots=True)
class Options:
    kind: Kind
    messages: int
    slots: int = 64
    seed: int = 1
    spin_us: float | None = None

    @property
    def consumers(self) -> int:
        return 2 if self.kind == "broadcast" else 1

    @property
    def roles(self) -> tuple[str, ...]:
        return ("producer", *(f"consumer {number}" for number in range(self.consumers)))


class Pace:
    """Random batch sizes, random choices, and random sleeps: short ones in which the other side parks, and now
    and then one longer than a slice of a wait (40 ms), so that timed waits expire and are renewed."""

    def __init__(self, seed: int, most: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a repeatable run, not a secret
        self._most = most
        self.sleeps = 0

    def batch(self, left: int) -> int:
        self._sleep()
        return min(left, self._random.randint(1, self._most))

    def one_in(self, n: int) -> bool:
        return self._random.random() * n < 1

    def _sleep(self) -> None:
        draw = self._random.random()
        if draw < 1 / 300:
            self.sleeps += 1
            time.sleep(0.05 if draw < 1 / 30000 else self._random.random() * 3e-4)
