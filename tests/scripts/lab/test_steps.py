"""Inputs of steps: every token has a place of its own, and padding has none."""

from __future__ import annotations

import numpy as np
import pytest

from model.emulated import CostModel, EmulatedRunner, EmulatedSettings
from model.runner import Bucket
from scripts.lab.steps import step_inputs, timed_ms

SIZE = 16


def runner(*buckets):
    settings = EmulatedSettings(
        cost=CostModel(0.0), vocab_size=100, max_length=128, num_blocks=64, block_size=SIZE, buckets=buckets,
        eos_token_id=2,
    )  # fmt: skip
    made = EmulatedRunner(settings)
    made.load()
    return made


@pytest.mark.parametrize(("tokens", "rows", "live"), [(4, 4, None), (11, 3, None), (8, 8, 3), (8, 8, 8)])
def test_every_row_has_its_context(tokens, rows, live):
    bucket, context = Bucket(tokens, rows), 40
    device = runner(bucket)
    inputs = step_inputs(device.facts, bucket, context, live)
    used = rows if live is None else live
    news = tokens if live is None else live
    assert inputs.q_seq_lens.sum() == news
    assert inputs.valid_length.tolist() == [context] * used + [0] * (rows - used)
    row = np.repeat(np.arange(rows), inputs.q_seq_lens)
    positions = inputs.positions[:news]
    assert positions[inputs.sample_index[:used]].tolist() == [context - 1] * used
    blocks = inputs.block_tables[row, positions // SIZE]
    assert (inputs.slot_mapping[:news] == blocks * SIZE + positions % SIZE).all()
    assert len(set(inputs.slot_mapping[:news].tolist())) == news
    assert (inputs.slot_mapping[news:] == -1).all()
    device.step(device.bind(inputs), np.zeros((rows, 100), np.float32))  # it takes them


def test_the_first_step_is_not_timed():
    calls = []
    times = timed_ms(lambda: calls.append("step"), 3, lambda: calls.append("before"))
    assert calls == ["step", *["before", "step"] * 3]
    assert len(times) == 3
    assert min(times) >= 0
