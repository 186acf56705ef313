"""Sequences through a runner, in steps that mix chunks and single tokens of all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.runner import Bucket, Runner
from tests.model.driver import Driver

STEP = Bucket(20, 3, 20)
LENGTH = 64  # of every sequence
CHUNKS = (9, 1, 1, 13, 1, 7, 8)  # of each of two rows, in turns; never both whole


def feed(runner: Runner, tokens: Sequence[Sequence[int]], slots: Sequence[int] = (0, 0, 0)) -> list[np.ndarray]:
    """Logits behind every token of two or three sequences, in steps that mix chunks and single tokens of all, over
    scattered blocks and with padding; the second is dropped half way and computed again. ``slots``: adapters."""
    driver, found, rest = Driver(runner, seed=3), [[] for _ in tokens], [list(ids) for ids in tokens]
    driver.adapters = dict(enumerate(slots))
    most = STEP.tokens // len(tokens)
    for number, size in enumerate((*CHUNKS, *[10] * 24)):
        if number == len(CHUNKS):
            driver.release(1)
            rest[1], found[1] = list(tokens[1]), []
        sizes = (size, CHUNKS[-1 - number % len(CHUNKS)], CHUNKS[number % len(CHUNKS)])
        chunks = {name: ids[: min(sizes[name], most)] for name, ids in enumerate(rest) if ids}
        if chunks:
            logits = driver.step(chunks, range(sum(map(len, chunks.values()))), bucket=STEP)
            for name, ids in chunks.items():
                found[name].append(logits[: len(ids)])
                logits, rest[name] = logits[len(ids) :], rest[name][len(ids) :]
    runner.close()
    return [np.concatenate(logits) for logits in found]
