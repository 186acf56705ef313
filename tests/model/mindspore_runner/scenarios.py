"""What the tests do with the decoder, in a process with MindSpore (tests/model/conftest.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.errors import ModelError
from model.mindspore_runner import MindSporeRunner, MindSporeSettings
from model.runner import Bucket
from tests.model.driver import Driver

STEP = Bucket(20, 3, 20)
CHUNKS = (9, 1, 1, 13, 1, 7, 8)  # of each of two rows, in turns; never both whole
LENGTH = 64  # of every sequence


def settings(folder, **changes) -> MindSporeSettings:
    chosen = {
        "config_path": Path(folder),
        "checkpoint_path": Path(folder),
        "num_blocks": 16,
        "max_rows": 3,
        "token_budget": 20,
        "max_length": LENGTH,
        "buckets": (STEP, Bucket(20, 3)),
        **changes,
    }
    return MindSporeSettings(**chosen)


def loaded(folder, **changes) -> MindSporeRunner:
    runner = MindSporeRunner(settings(folder, **changes))
    runner.load()
    return runner


def refusal(folder, **changes) -> str | None:
    """Why it does not become ready."""
    runner = MindSporeRunner(settings(folder, **changes))
    try:
        runner.load()
        runner.warm_up()
    except ModelError as error:
        return str(error)
    finally:
        runner.close()
    return None


def mixed(folder, tokens, slots=(0, 0, 0), **changes):
    """Logits behind every token of two or three sequences, in steps that mix chunks and single tokens of all, over
    scattered blocks and with padding; the second is dropped half way and computed again. ``slots``: adapters."""
    runner = loaded(folder, **changes)
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
