"""Steps of one shape: whether a sequence's logits depend on anything but its tokens, to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import numpy as np

from model.runner import Runner
from tests.model.driver import Driver
from tests.model.mixed_steps import STEP

WAYS = {
    "alone": ((0,), (1,), (0,)),
    "behind another": ((3, 1, 9, 2, 16), (1,), (0, 1, 3)),
    "in chunks, between others": ((1, 4, 7, 2), (2, 9, 1, 5), (6, 1, 3)),
    "first in chunks, then token by token": ((2,), (12, 12, *[1] * 99), (1,)),
}
"""How many tokens it has in each step, in turns, between those of a sequence before it and of one behind it."""


def differences(runner: Runner, count: int) -> dict[str, int]:
    """Of `count` positions of a sequence, those whose logits are others than when it is computed alone, token by
    token; by way. All steps have the shape `STEP`."""
    ids = np.random.default_rng(5).integers(0, runner.facts.vocab_size, count).tolist()
    alone = _logits(runner, ids, *WAYS["alone"])
    assert len(np.unique(alone, axis=0)) == count
    return {name: int((_logits(runner, ids, *way) != alone).any(axis=1).sum()) for name, way in WAYS.items()}


def _logits(
    runner: Runner, ids: Sequence[int], before: Sequence[int], own: Sequence[int], behind: Sequence[int]
) -> np.ndarray:
    """Behind each of these tokens; others are drawn."""
    runner.abandon()
    driver, rng, found, at = Driver(runner, len(own)), np.random.default_rng(len(before)), [], 0
    driver.adapters = {"own": 1, "behind": 2} if runner.facts.adapters else {}
    for first, size, last in zip(*map(cycle, (before, own, behind)), strict=False):
        if at == len(ids):
            return np.concatenate(found)
        mine = list(ids[at : at + size])
        sizes = {"before": first, "own": len(mine), "behind": min(last, STEP.tokens - first - len(mine))}
        chunks = {name: rng.integers(0, runner.facts.vocab_size, n).tolist() for name, n in sizes.items() if n > 0}
        chunks["own"] = mine
        for name in chunks.keys() - {"own"}:
            if driver.lengths.get(name, 0) + len(chunks[name]) > runner.facts.max_length:
                driver.release(name)
        logits = driver.step(chunks, range(sum(map(len, chunks.values()))), bucket=STEP)
        found.append(logits[first : first + len(mine)])
        at += len(mine)
    return np.concatenate(found)
