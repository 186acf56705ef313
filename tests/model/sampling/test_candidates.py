"""Draws from candidates: what a draw from the whole row would give, or nothing."""

from __future__ import annotations

import numpy as np
import pytest

from model.sampling import Drawer, SamplingParams
from scripts.verify.draws import compare, from_candidates, from_whole_row


def test_never_another_token():
    tally = compare(200_000, seed=1)
    assert len(tally.draws) == 5
    assert tally.faults == 0
    assert all(tally.unknown[kind] < tally.draws[kind] for kind in tally.draws)
    assert tally.unknown["argmax"] == 0


@pytest.mark.parametrize(
    ("params", "most"),
    [
        (SamplingParams(temperature=0.7, top_k=40, top_p=0.95), 0),
        (SamplingParams(temperature=1.5, top_k=63), 0),
        (SamplingParams(temperature=0.6, top_p=0.9), 0.001),
        (SamplingParams(temperature=1, top_p=0.95), 0.001),
        (SamplingParams(temperature=1, min_p=0.05), 0.001),
        (SamplingParams(temperature=0.7), 0.05),
    ],
)
def test_they_are_nearly_always_enough_where_a_model_is_as_sure_as_models_are(params, most):
    """The logits of a vocabulary of 32,000, of which 40 are well above the rest."""
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 1, 32_000).astype(np.float32)
    logits[rng.choice(32_000, 40, replace=False)] += np.linspace(16, 10, 40, dtype=np.float32)
    seeds, positions = rng.integers(0, 2**64, 400, np.uint64), rng.integers(1, 5000, 400, np.int32)
    tokens = from_candidates(logits, params, seeds, positions, 64)
    known = tokens >= 0
    assert 1 - known.mean() <= most
    np.testing.assert_array_equal(tokens[known], from_whole_row(logits, params, seeds, positions)[known])
    assert len(set(tokens.tolist())) > 3


def draw(drawer=None, **changes):
    arrays = {
        "ids": np.array([[7, 3, 5]], np.int32),
        "logits": np.array([[2.0, 1.0, 1.0]], np.float32),
        "log_sum_exp": np.array([np.nan]),
        "positions": np.array([9], np.int32),
        "seeds": np.array([4], np.uint64),
        "parameters": np.array([[1.0, 2, 1, 0]]),
        "tokens": np.zeros(1, np.int32),
        **changes,
    }
    drawer = drawer or Drawer(100)
    drawer.prepare(*arrays.values())
    return drawer.draw(), arrays["tokens"].tolist()


@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p", "unknown"),
    [
        (1, 1, 0, 0),
        (2, 1, 0, 1),  # others may equal the second and third
        (3, 1, 0, 1),
        (3, 0.02, 0, 0),  # even then the first is enough
        (0, 1, 0.5, 0),  # the first alone
        (0, 1, 0.3, 1),  # all three, and perhaps more
        (0, 0.5, 0, 1),  # the sum of all is not known
        (50, 0.1, 0, 1),  # 97 others may be as large as the third
        (50, 0.02, 0, 0),
    ],
)
def test_what_is_known_without_the_sum_of_all(top_k, top_p, min_p, unknown):
    assert draw(parameters=np.array([[1.0, top_k, top_p, min_p]]))[0] == unknown


def test_a_row_that_is_not_finite_has_no_token_and_is_not_unknown():
    assert draw(ids=np.full((1, 3), -1, np.int32), logits=np.full((1, 3), np.nan, np.float32)) == (0, [-1])


def test_temperature_0_is_the_argmax():
    assert draw(parameters=np.array([[0.0, 0, 1, 0]])) == (0, [7])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": np.zeros((1, 3), np.int64)}, "ids must be int32 with 2 axes"),
        ({"ids": np.zeros((2, 3), np.int32)}, "ids does not fit: 1 tokens of 3 candidates each"),
        ({"logits": np.zeros((1, 4), np.float32)}, "logits does not fit"),
        ({"seeds": np.zeros(1, np.int64)}, "seeds must be uint64"),
        ({"parameters": np.zeros((1, 3))}, "parameters does not fit"),
        ({"tokens": np.zeros((1, 1), np.int32)}, "tokens must be int32 with 1 axes"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        draw(**changes)


def test_more_candidates_than_the_vocabulary_has_are_refused():
    with pytest.raises(ValueError, match="3 candidates per token; a vocabulary of 2"):
        draw(Drawer(2))


def test_what_is_drawn_is_what_the_arrays_hold_by_then():
    """They are prepared before the device has filled them."""
    ids, tokens, drawer = np.zeros((1, 3), np.int32), np.zeros(1, np.int32), Drawer(100)
    with pytest.raises(ValueError, match="nothing is prepared"):
        drawer.draw()
    drawer.prepare(
        ids, np.ones((1, 3), np.float32), np.zeros(1), np.zeros(1, np.int32), np.zeros(1, np.uint64),
        np.zeros((1, 4)), tokens,
    )  # fmt: skip
    ids[0] = 8, 6, 4
    assert (drawer.draw(), tokens.tolist()) == (0, [8])
    with pytest.raises(ValueError, match="does not fit"):
        draw(drawer, tokens=np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="nothing is prepared"):  # nor are those from before
        drawer.draw()
