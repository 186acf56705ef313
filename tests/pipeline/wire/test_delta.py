"""Deltas go through their bytes as they are, and their heads can be read alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.wire.delta import (
    SCORES,
    Delta,
    FinishReason,
    PromptScores,
    delta_head,
    scored_span,
    unpack_delta,
    unpack_scores,
)
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


@pytest.mark.parametrize(("n", "k"), [(1, 0), (3, 2), (32, 20)])
def test_scores_of_a_prompt(n, k):
    at = np.arange(n, dtype=np.int32)
    best = at[:, None] * np.ones(k, np.int32)
    scores = PromptScores(
        2**64 - 1, 7, 2**31, at + 5, -at.astype(np.float32), best, -best.astype(np.float32)
    )  # fmt: skip
    record = scores.pack()
    found = unpack_scores(record)
    assert (found.request, found.attempt, found.position) == (2**64 - 1, 7, 2**31)
    for name in ("ids", "logprobs", "top_ids", "top_logprobs"):
        np.testing.assert_array_equal(getattr(found, name), getattr(scores, name), strict=True)
    assert scored_span(record) == (2**31, n)
    assert delta_head(record) == (2**64 - 1, 7, 0, 0, SCORES)
    assert SCORES not in list(FinishReason)
