"""When the sampler is told of new sequences: of those that are due, then a few at a time of the others."""

from __future__ import annotations

import pytest

from model.sampling import SamplingParams
from pipeline.sampling.chooser import AT_ONCE, ROW_COST, PendingAdmits
from tests.pipeline.sampling.test_rows import VERIFIER, Sampler, assign

PLAIN = SamplingParams()


@pytest.fixture
def sampler():
    return Sampler()


def test_first_those_that_are_due(sampler):
    pending = PendingAdmits(sampler, None, VERIFIER)
    for row in range(4):
        pending.add(assign(row, row), PLAIN)
    pending.discard(3)
    pending.apply([2, -1, 0, 3])
    assert [row for row, _ in sampler.admitted] == [2, 0]
    pending.apply_others()
    assert [row for row, _ in sampler.admitted] == [2, 0, 1]


def test_the_last_sequence_of_a_row_counts(sampler):
    pending = PendingAdmits(sampler, None, VERIFIER)
    pending.add(assign(1, 0, prompt=(1,)), PLAIN)
    pending.add(assign(2, 0, prompt=(2,)), PLAIN)
    pending.apply_others()
    assert sampler.admitted == [(0, [2])]


@pytest.mark.parametrize(("penalty", "rows"), [(1.0, AT_ONCE // ROW_COST), (1.1, 1)])
def test_no_more_at_once_than_a_step_may_wait_for(sampler, penalty, rows):
    """Tokens cost where they are read: where they are penalised."""
    pending = PendingAdmits(sampler, None, VERIFIER)
    for row in range(rows + 5):
        pending.add(assign(row, row, prompt=(7,) * AT_ONCE), SamplingParams(repetition_penalty=penalty))
    pending.apply_others()
    assert len(sampler.admitted) == rows
