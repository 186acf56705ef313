"""What the tests do with the decoder, in a process with MindSpore (tests/model/conftest.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.errors import ModelError
from model.layout import padding
from model.mindspore_runner import MindSporeRunner, MindSporeSettings
from model.runner import Bucket
from tests.model.mixed_steps import LENGTH, STEP, feed
from tests.model.one_shape import differences


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
    """See `feed`."""
    return feed(loaded(folder, **changes), tokens, slots)


def differences_in_one_shape(folder, count, **changes) -> dict[str, int]:
    """See `differences`."""
    runner = loaded(folder, max_length=256, num_blocks=64, **changes)
    found = differences(runner, count)
    runner.close()
    return found


def compiled_in_order(folder, sizes, **changes):
    """Logits behind one token in each of these buckets, by its size; compiled in this order, as they are missed."""
    runner, found = loaded(folder, max_rows=4, token_budget=8, buckets=None, **changes), {}
    for size in sizes:
        runner.compile(Bucket(*size))
        inputs = padding(Bucket(*size), runner.facts)
        inputs.input_ids[0], inputs.slot_mapping[0] = 7, 16
        inputs.valid_length[0] = inputs.q_seq_lens[0] = inputs.block_tables[0, 0] = 1
        found[size] = np.empty((1, runner.facts.vocab_size), np.float32)
        runner.step(runner.bind(inputs), found[size])
    runner.close()
    return found
