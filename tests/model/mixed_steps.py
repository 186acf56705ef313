"""Two sequences through a runner, in steps that mix chunks and single tokens of both."""

from __future__ import annotations

import numpy as np

from model.runner import Bucket, Runner
from tests.model.driver import Driver

CHUNKS = (9, 1, 1, 13, 1, 7, 8)  # of each of two rows, in turns; never both whole


def feed(runner: Runner, tokens: list[list[int]], bucket: Bucket) -> list[np.ndarray]:
    """Logits behind every token, over scattered blocks and with padding; the second sequence is dropped half way and
    computed again. ``bucket``: of all steps, with 20 tokens and as many samples."""
    driver, found = Driver(runner, seed=3), {"first": [], "second": []}
    rest = {"first": list(tokens[0]), "second": list(tokens[1])}
    for number, size in enumerate((*CHUNKS, *[10] * 12)):
        if number == len(CHUNKS):
            driver.release("second")
            rest["second"], found["second"] = list(tokens[1]), []
        sizes = {"first": size, "second": CHUNKS[-1 - number % len(CHUNKS)]}
        chunks = {name: ids[: min(sizes[name], 10)] for name, ids in rest.items() if ids}
        if chunks:
            logits = driver.step(chunks, range(sum(map(len, chunks.values()))), bucket=bucket)
            for name, ids in chunks.items():
                found[name].append(logits[: len(ids)])
                logits, rest[name] = logits[len(ids) :], rest[name][len(ids) :]
    return [np.concatenate(found[name]) for name in ("first", "second")]
