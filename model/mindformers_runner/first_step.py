"""The first step: are the model's logits finite?"""

from __future__ import annotations

import numpy as np

from model.mindformers_runner.execution import one_token_inputs
from model.mindformers_runner.finite import require_finite_logits
from model.runner import Best, Bucket, Runner


def try_one_token(runner: Runner, bucket: Bucket) -> None:
    """Raises ModelError when the logits behind one token are not finite: then every answer would be an error.

    Padding alone would not do. What attention makes of it need not be finite.
    """
    facts = runner.facts
    logits = np.empty((1, facts.vocab_size), np.float32)
    runner.step(runner.bind(one_token_inputs(bucket, facts.block_table_width)), logits)
    require_finite_logits(logits[0], facts.device)
    if facts.candidates:  # what a device does for them is compiled now, too
        ids = np.empty((1, 1), np.int32)
        runner.fetch_best(Best(ids))
        runner.fetch_best(Best(ids, log_sum_exp=np.empty(1)))
    runner.abandon()
