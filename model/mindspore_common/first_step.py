"""The first steps: are the model's logits finite, and does a row's place in a step not matter?"""

from __future__ import annotations

import numpy as np

from model.checkpoint.finite import require_finite_logits
from model.layout import padding
from model.runner import Best, Bucket, Runner, RunnerFacts, StepInputs


def try_one_token(runner: Runner, bucket: Bucket, arithmetic: str) -> None:
    """Raises ModelError when the logits behind one token are not finite: then every answer would be an error.

    ``arithmetic``: what the runner computes in. Padding alone would not do. What attention makes of it need not be
    finite.
    """
    facts = runner.facts
    logits = np.empty((1, facts.vocab_size), np.float32)
    runner.step(runner.bind(_one_token(bucket, facts)), logits)
    require_finite_logits(logits[0], arithmetic)
    if facts.candidates:  # what a device does for them is compiled now, too
        ids = np.empty((1, 1), np.int32)
        runner.fetch_best(Best(ids))
        runner.fetch_best(Best(ids, log_sum_exp=np.empty(1)))
    runner.abandon()


def places_agree(runner: Runner, bucket: Bucket) -> bool:
    """Whether rows with the same tokens, as many as fill the step, have the same logits to the bit. How a matrix
    product is divided among threads could make a difference."""
    facts = runner.facts
    rows = min(bucket.rows, facts.num_blocks)
    count = min(bucket.tokens // rows, facts.block_size)
    inputs, ids, real = padding(bucket, facts), np.arange(1, count + 1) % facts.vocab_size, rows * count
    inputs.input_ids[:real], inputs.positions[:real] = np.tile(ids, rows), np.tile(np.arange(count), rows)
    inputs.slot_mapping[:real] = (np.arange(rows)[:, None] * facts.block_size + np.arange(count)).ravel()
    inputs.valid_length[:rows] = inputs.q_seq_lens[:rows] = count
    inputs.block_tables[:rows, 0] = np.arange(rows)
    inputs.sample_index[:rows] = np.arange(1, rows + 1) * count - 1
    logits = np.empty((rows, facts.vocab_size), np.float32)
    runner.step(runner.bind(inputs), logits)
    runner.abandon()
    return bool((logits == logits[0]).all())


def _one_token(bucket: Bucket, facts: RunnerFacts) -> StepInputs:
    """One row with one token, which is written to the first slot of the KV cache; the rest is padding."""
    inputs = padding(bucket, facts)
    inputs.input_ids[0] = 1  # of most models the one that begins a text
    inputs.slot_mapping[0] = 0
    inputs.valid_length[0] = inputs.q_seq_lens[0] = 1
    return inputs
