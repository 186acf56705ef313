"""The largest logits of rows, against sorting, and against what the sampler says, to the bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.sampling import BestOfRows, SampleOutputs, Sampler, SamplingLimits, SamplingParams
from tests.examples import examples

FEW = np.array([-3.0, -0.0, 0.0, 1.0, 1.0000001, 88.0], np.float32)  # many equal ones


def find(logits, n, k, targets=None, width=0):
    """ids, logits, log_sum_exp, target_logit of the first n rows."""
    out = np.zeros((n, k), np.int32), np.zeros((n, k), np.float32), np.zeros(n), np.zeros(n, np.float32)
    targets = np.zeros(n, np.int32) if targets is None else targets
    BestOfRows(logits.shape[1], width).find(logits, *out[:3], targets, out[3])
    return out


def sampled(logits, top):
    n, vocab = logits.shape
    sampler, out = Sampler(SamplingLimits(vocab, 1), 1), SampleOutputs.allocate(n, top)
    sampler.admit(0, SamplingParams(temperature=0.0, logprobs=top), [])
    sampler.sample(logits, np.zeros(n, np.int32), np.zeros(n, np.int32), out)
    return out


def logprobs(logits, log_sum_exp):
    return (logits.astype(np.float64) - log_sum_exp).astype(np.float32)


@examples(200)
@given(st.data(), st.integers(1, 1200), st.booleans(), st.sampled_from([1.0, 30.0, 1e30]), st.integers(0, 9999))
def test_as_sorting_and_as_the_sampler_to_the_bit(data, vocab, few, scale, seed):
    random = np.random.default_rng(seed)
    logits = random.choice(FEW, (3, vocab)) if few else random.normal(0, scale, (3, vocab)).astype(np.float32)
    k = data.draw(st.integers(1, min(vocab, 70)))
    targets = random.integers(0, vocab, 2).astype(np.int32)
    ids, best, log_sum_exp, target_logit = find(logits, 2, k, targets)
    order = np.argsort(-logits[:2], axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(ids, order)
    np.testing.assert_array_equal(best, np.take_along_axis(logits[:2], order, 1))
    np.testing.assert_array_equal(target_logit, logits[[0, 1], targets])
    out = sampled(logits[:2], min(k, 20))
    np.testing.assert_array_equal(ids[:, 0], out.token_ids)
    np.testing.assert_array_equal(logprobs(best[:, 0], log_sum_exp), out.logprobs)
    np.testing.assert_array_equal(logprobs(best, log_sum_exp[:, None])[:, :20], out.top_logprobs)


@pytest.mark.parametrize("vocab", [32000, 128256])
def test_real_vocabularies(vocab):
    logits = np.random.default_rng(vocab).normal(0, 4, (8, vocab)).astype(np.float32)
    ids, best, log_sum_exp, _ = find(logits, 8, 5)
    exact = np.logaddexp.reduce(logits.astype(np.float64), axis=1)
    np.testing.assert_allclose(log_sum_exp, exact, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(logprobs(best, log_sum_exp[:, None]), sampled(logits, 5).top_logprobs)
    np.testing.assert_array_equal(ids, np.argsort(-logits, axis=1, kind="stable")[:, :5])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 511, 999])
def test_a_row_that_is_not_finite_says_so_and_others_do_not_notice(bad, at):
    logits = np.random.default_rng(0).normal(size=(3, 1000)).astype(np.float32)
    logits[1, at] = bad
    for k in (1, 4):
        ids, *rest = find(logits, 3, k)
        assert ids[1].tolist() == [-1] * k
        assert all(np.isnan(array[1]).all() for array in rest)
        for row in (0, 2):
            assert ids[row].tolist() == np.argsort(-logits[row])[:k].tolist()
            assert all(np.isfinite(array[row]).all() for array in rest)


@pytest.mark.parametrize("width", [4, 8, 16])
def test_every_instruction_set_gives_the_same_bits(width):
    logits = np.random.default_rng(1).normal(0, 3, (4, 3001)).astype(np.float32)
    try:
        narrow = find(logits, 4, 9, width=width)
    except ValueError as error:
        pytest.skip(str(error))
    for ours, widest in zip(narrow, find(logits, 4, 9), strict=True):
        assert ours.tobytes() == widest.tobytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"logits": np.zeros((2, 9), np.float32)},
            r"logits \[2, 9\] and ids \[2, 3\] do not fit: 2 rows or more of 10",
        ),
        ({"logits": np.zeros((1, 10), np.float32)}, r"logits \[1, 10\] and ids \[2, 3\] do not fit"),
        ({"logits": np.zeros((2, 10))}, "logits must be float32 with 2 axes"),
        ({"ids": np.zeros((2, 0), np.int32)}, "1 to 10 ids"),
        ({"ids": np.zeros((2, 11), np.int32)}, "1 to 10 ids"),
        ({"ids": np.zeros(2, np.int32)}, "ids must be int32 with 2 axes"),
        ({"best_logits": np.zeros((2, 2), np.float32)}, "best_logits does not fit the shape of ids"),
        ({"log_sum_exp": np.zeros(2, np.float32)}, "log_sum_exp must be float64"),
        ({"log_sum_exp": np.zeros(3)}, "log_sum_exp does not fit"),
        ({"targets": None}, "targets and target_logit belong together"),
        ({"target_logit": None}, "targets and target_logit belong together"),
        ({"targets": np.array([0, 10], np.int32)}, r"targets\[1\] is 10, expected 0 to 9"),
        ({"targets": np.array([-1, 0], np.int32)}, r"targets\[0\] is -1"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_and_nothing_is_written(change, message):
    arrays = {
        "logits": np.ones((2, 10), np.float32),
        "ids": np.full((2, 3), 7, np.int32),
        "best_logits": np.zeros((2, 3), np.float32),
        "log_sum_exp": np.zeros(2),
        "targets": np.zeros(2, np.int32),
        "target_logit": np.zeros(2, np.float32),
        **change,
    }
    with pytest.raises(ValueError, match=message):
        BestOfRows(10).find(*arrays.values())
    assert np.all(arrays["ids"] == 7) or "ids" in change
    with pytest.raises(ValueError, match="vocab_size is 0"):
        BestOfRows(0)
