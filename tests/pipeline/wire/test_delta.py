"""Deltas go through their bytes as they are, and their heads can be read alone."""

from __future__ import annotations

import math

import pytest

from pipeline.wire.delta import Delta, FinishReason, delta_head, unpack_delta
from pipeline.wire.request import MAX_STOPS


@pytest.mark.parametrize("text", ["", " 世界🙂"])
@pytest.mark.parametrize("top", [(), ((5, -0.5), (7, -1.25))])
@pytest.mark.parametrize("stop", [-1, MAX_STOPS - 1])
@pytest.mark.parametrize("reason", FinishReason)
def test_a_delta_and_its_head(text, top, reason, stop):
    delta = Delta(2**64 - 1, 2**32 - 1, 3, 31999, -0.75, reason, text, top, stop)
    record = delta.pack()
    assert unpack_delta(record) == unpack_delta(memoryview(record)) == delta
    assert delta_head(record) == (delta.request, delta.attempt, delta.index, delta.token_id, reason)


def test_a_log_probability_that_was_not_asked_for():
    delta = unpack_delta(Delta(1, 0, 1, -1, math.nan, FinishReason.FAILED, "why").pack())
    assert math.isnan(delta.logprob)
    assert (delta.token_id, delta.text) == (-1, "why")
