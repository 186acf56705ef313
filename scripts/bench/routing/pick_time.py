"""What the router costs the front: microseconds on this machine."""

from __future__ import annotations

import random
import timeit
from collections import deque
from itertools import count

from pipeline.front.delivery.routing import Router, Weights

SIZES = (200, 48_000)
REPLICAS = (1, 4, 16, 64)
_PROMPTS, _LIVE, _TURNS, _REPEATS = 64, 128, 200, 7


def microseconds(size: int, replicas: int) -> tuple[float, float]:
    """To choose for a prompt of `size` bytes that is known on some replica; and all that is done for such a request
    until it ends. The least of several means."""
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
    picking = timeit.repeat(lambda: router.pick(prompts[0]), number=_TURNS, repeat=_REPEATS)
    serving = timeit.repeat(whole, number=_TURNS, repeat=_REPEATS)
    return 1e6 * min(picking) / _TURNS, 1e6 * min(serving) / _TURNS
