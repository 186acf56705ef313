"""What the router costs the front: microseconds of CPU on this machine."""

from __future__ import annotations

import random
import time
import timeit
from collections import deque
from collections.abc import Callable
from itertools import count

from pipeline.front.delivery.routing.router import Router, Weights

SIZES = (200, 48_000)
REPLICAS = (1, 4, 16, 64, 1000)
_PROMPTS, _LIVE, _TURNS, _REPEATS = 64, 128, 200, 7


def microseconds(size: int, replicas: int) -> tuple[float, float]:
    """To choose for a prompt of `size` bytes that is known on some replica; and all that is done for such a request
    until it ends. Of CPU time, the least of several means."""
    draw = random.Random(size)  # noqa: S311 - texts that can be repeated
    prompts = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz ", k=size)) for _ in range(_PROMPTS)]
    router, numbers, live = Router(replicas, Weights()), count(), deque[int]()

    def begin() -> None:
        number = next(numbers)
        choice = router.pick(prompts[number % _PROMPTS])
        assert choice is not None
        router.sent(choice, [number])
        router.accepted(number, size // 4)
        router.started(number, choice.expected_cached)
        router.prefilled(number)
        live.append(number)

    def whole() -> None:
        router.finished(live.popleft(), 100)
        begin()

    for _ in range(_LIVE):
        begin()

    def least_us(what: Callable[[], object]) -> float:
        return 1e6 * min(timeit.repeat(what, timer=time.thread_time, number=_TURNS, repeat=_REPEATS)) / _TURNS

    return least_us(lambda: router.pick(prompts[0])), least_us(whole)
