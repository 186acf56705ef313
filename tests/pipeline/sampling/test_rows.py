"""Which request has which row from which step on, and who is served no more."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from model.sampling import SamplingParams
from pipeline.sampling.pending_admits import PendingAdmits
from pipeline.sampling.rows import Rows
from pipeline.wire.request import Assign, Drop, Request


class Sampler:
    """Notes of whom it was told."""

    def __init__(self):
        self.admitted = []

    def admit(self, row, sampling, prompt_ids, output_ids, *, seed, end_ids):
        self.admitted.append((row, prompt_ids.tolist()))


@pytest.fixture
def sampler():
    return Sampler()


@pytest.fixture
def pending(sampler):
    return PendingAdmits(sampler, None)


@pytest.fixture
def rows(pending):
    return Rows(4, lambda assign: SimpleNamespace(request=assign.request, sampling=None), pending)


def assign(request, row, *, step=1, epoch=1, prompt=(7,)):
    params = Request(SamplingParams(), 5).pack()
    return Assign(request, 0, step, row, epoch, 9, None, (), params, np.array(prompt, np.int32).tobytes())


def test_a_row_changes_with_the_step_that_first_serves_it(rows, pending, sampler):
    rows.change(assign(1, 2, step=1, epoch=1))
    rows.change(assign(2, 2, step=5, epoch=2))
    rows.begin_step(4)
    assert rows.select([2], [1]) == [2]
    assert rows.state(2).request == 1
    rows.release(2)
    assert rows.select([2], [1]) == [-1]
    rows.begin_step(5)
    assert rows.select([2, 2], [1, 2]) == [-1, 2]
    pending.apply([2])
    assert (rows.state(2).request, sampler.admitted) == (2, [(2, [7])])


def test_a_preempted_request_keeps_its_state(rows):
    rows.change(assign(1, 0, epoch=1))
    rows.begin_step(1)
    before = rows.state(0)
    rows.change(assign(1, 3, step=2, epoch=1))
    rows.begin_step(2)
    assert rows.state(3) is before
    assert len(rows) == 1


def test_a_cancelled_request_is_gone_wherever_it_was(rows, pending, sampler):
    rows.change(assign(1, 0))
    rows.change(assign(2, 1, step=9))
    rows.begin_step(1)
    for request in (1, 2, 3):
        rows.change(Drop(request))
    rows.begin_step(9)
    assert rows.select([0, 1], [1, 1]) == [-1, -1]
    assert len(rows) == 0
    pending.apply_others()
    assert sampler.admitted == []
