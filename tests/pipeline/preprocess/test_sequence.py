"""How far a sequence has come."""

from __future__ import annotations

import numpy as np

from pipeline.preprocess.sequence import Sequence


def test_tokens_that_are_sampled_count_before_they_are_known():
    sequence = Sequence(1, np.zeros(5, np.int32), prompt=3, limit=5, known=3)
    assert sequence.fresh
    sequence.pending = 2
    assert (sequence.length, sequence.complete) == (5, True)
    sequence.append(70)
    assert (sequence.known, sequence.pending, sequence.tokens[3]) == (4, 1, 70)
    assert not sequence.fresh
    assert sequence.complete


def test_one_that_was_preempted_is_not_fresh():
    sequence = Sequence(1, np.zeros(5, np.int32), prompt=3, limit=5, known=3, preemptions=1)
    assert not sequence.fresh
