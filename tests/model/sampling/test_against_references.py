"""Tokens compared with transformers (stored), with numpy, and with the distribution they are drawn from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.sampling import SamplingParams
from tests.examples import examples

FIXTURE = Path(__file__).parents[1] / "data" / "sampling_transformers.npz"
DRAWS = 400


@pytest.fixture(scope="module")
def stored():
    with np.load(FIXTURE, allow_pickle=False) as arrays:
        return dict(arrays)


def stored_params(stored, case: int, seed: int) -> SamplingParams:
    numbers: dict[str, Any] = {
        name: float(stored[name][case]) for name in ("temperature", "top_p", "min_p", "repetition_penalty")
    }
    return SamplingParams(
        **numbers,
        top_k=int(stored["top_k"][case]),
        min_tokens=int(stored["min_tokens"][case]),
        stop_token_ids=tuple(stored["stop"][case].tolist()),
        logit_bias=dict(zip(stored["bias_ids"][case].tolist(), stored["bias_values"][case].tolist(), strict=True)),
        seed=seed,
    )


@pytest.mark.parametrize("case", range(32))
def test_draws_from_the_distribution_that_transformers_computes(case, stored, reference, bench):
    prompt, output = stored["prompt"][case].tolist(), stored["output"][case].tolist()
    b = bench(stored["logits"].shape[1], DRAWS)
    for seed in range(DRAWS):
        b.admit(seed, stored_params(stored, case, seed), prompt, output)
    tokens = b.sample(np.tile(stored["logits"][case], (DRAWS, 1)))

    cumulative = np.cumsum(stored["probabilities"][case].astype(np.float64))
    u = np.array([reference.uniform(seed, len(prompt) + len(output)) for seed in range(DRAWS)])
    low, high = (np.searchsorted(cumulative / cumulative[-1], u + nudge, side="right") for nudge in (-1e-5, 1e-5))
    assert np.all((low <= tokens) & (tokens <= high))
    assert np.mean(low == high) > 0.9  # else the comparison would mean little


def test_the_stored_cases_use_every_warper(stored):
    for name, off in {
        "temperature": 1,
        "top_k": 0,
        "top_p": 1,
        "min_p": 0,
        "repetition_penalty": 1,
        "min_tokens": 0,
    }.items():
        assert np.count_nonzero(stored[name] != off) >= 10
        assert np.count_nonzero(stored[name] == off) >= 5


TOKENS = st.integers(0, 39)
PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0, 1e-6, 0.01, 0.3, 1, 1.7, 50.0]),
    top_k=st.sampled_from([-1, 0, 1, 2, 5, 17, 39, 40, 1000]),
    top_p=st.sampled_from([1e-9, 0.1, 0.5, 0.9, 0.999, 1, 1.0]),
    min_p=st.sampled_from([0, 0.01, 0.2, 0.9, 1]),
    repetition_penalty=st.sampled_from([0.5, 1, 1, 1.3, 5.0]),
    presence_penalty=st.sampled_from([-2, 0, 0, 0.7, 2]),
    frequency_penalty=st.sampled_from([-2, 0, 0, 0.3, 2]),
    seed=st.integers(0, 2**64 - 1),
    logit_bias=st.dictionaries(TOKENS, st.sampled_from([-100.0, -1.5, 0.25, 3.0, 100.0]), max_size=3),
    banned_token_ids=st.lists(TOKENS, max_size=3).map(tuple),
    min_tokens=st.integers(0, 5),
    stop_token_ids=st.lists(TOKENS, max_size=2).map(tuple),
)
LOGITS = st.one_of(
    st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).normal(0, 3, 40)),
    st.lists(st.sampled_from([-3.0, 0.0, 0.5, 2.0, 9.0]), min_size=40, max_size=40).map(np.array),  # many ties
)
ROW = st.tuples(LOGITS, PARAMS, st.lists(TOKENS, min_size=1, max_size=12), st.lists(TOKENS, max_size=12))


@examples(150)
@given(st.lists(ROW, min_size=1, max_size=6))
def test_any_mix_of_settings_in_one_batch_agrees_with_the_reference(reference, bench, rows):
    b = bench(40, len(rows))
    logits = np.stack([row[0] for row in rows]).astype(np.float32)
    for index, (_, params, prompt, output) in enumerate(rows):
        b.admit(index, params, prompt, output)
    tokens = b.sample(logits)
    for x, token, (_, params, prompt, output) in zip(logits, tokens, rows, strict=True):
        position = len(prompt) + len(output)
        assert token in reference.acceptable(x, params, position, prompt=prompt, output=output)


@examples(60)
@given(
    vocab=st.sampled_from([1, 2, 15, 16, 17, 127, 129, 511, 512, 513, 1040, 5000, 16385, 40000]),
    scale=st.sampled_from([0.0, 0.5, 2.0, 8.0]),
    kept=st.tuples(st.sampled_from([0, 1, 3, 40, 300, 2000]), st.sampled_from([0.2, 0.9, 0.99, 1.0])),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_vocabulary_size_agrees_with_the_reference(reference, bench, *, vocab, scale, kept, seed):
    top_k, top_p = kept
    logits = np.random.default_rng(seed).normal(0, 1, (4, vocab)).astype(np.float32) * np.float32(scale)
    b = bench(vocab, 4, top=min(vocab, 5))
    all_params = [SamplingParams(top_k=top_k, top_p=top_p, seed=seed + i, logprobs=min(vocab, 5)) for i in range(4)]
    for row, params in enumerate(all_params):
        b.admit(row, params)
    tokens = b.sample(logits)
    for row, params in enumerate(all_params):
        assert tokens[row] in reference.acceptable(logits[row], params, 1)
        best = np.lexsort((np.arange(vocab), -logits[row]))[: b.out.top_ids.shape[1]]
        expected = reference.logprobs(logits[row])
        assert np.array_equal(b.out.top_ids[row], best)
        np.testing.assert_allclose(b.out.top_logprobs[row], expected[best], atol=2e-6, rtol=2e-6)
        np.testing.assert_allclose(b.out.logprobs[row], expected[tokens[row]], atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("top_p", [0.001, 0.5, 0.9, 0.9999])
@pytest.mark.parametrize("misleading", ["large", "small", "equal", "few are not equal"])
def test_a_nucleus_does_not_depend_on_what_a_sample_of_the_weights_makes_of_it(reference, bench, misleading, top_p):
    """It is first looked for where 16 weights of each 512 say."""
    vocab = 20_001
    logits = np.random.default_rng(5).normal(0, 2, vocab).astype(np.float32)
    looked_at = np.arange(vocab) % 512 < 16
    logits[looked_at] = {"large": 9, "small": -9, "equal": 0, "few are not equal": 0}[misleading]
    if misleading == "few are not equal":
        logits[:] = 0
        logits[[17, 600, 601]] = [3, -3, 2]
    b = bench(vocab, 8, top=0)
    all_params = [SamplingParams(top_p=top_p, seed=seed) for seed in range(8)]
    for row, params in enumerate(all_params):
        b.admit(row, params)
    for token, params in zip(b.sample(np.tile(logits, (8, 1))), all_params, strict=True):
        assert token in reference.acceptable(logits, params, 1)


@pytest.mark.parametrize("vocab", [40, 5000])
def test_negative_zero_is_zero(reference, bench, vocab):
    x = -np.abs(np.random.default_rng(1).normal(0, 2, vocab)).astype(np.float32) - np.float32(1)
    x[[3, 11, 20]] = [-0.0, 0.0, -0.0]
    x[[5, 6]] = -0.5
    for top in (x, np.where(x == 0, np.float32(-0.0), x)):
        for top_k in (1, 2, 4, 9):
            b = bench(vocab, 100, top=0)
            for row in range(100):
                b.admit(row, SamplingParams(seed=row, top_k=top_k))
            tokens = b.sample(np.tile(top, (100, 1)))
            for row in range(100):
                assert tokens[row] in reference.acceptable(top, SamplingParams(seed=row, top_k=top_k), 1)


def chi_square_limit(degrees: int) -> float:
    """The 99.9th percentile (Wilson and Hilferty 1931)."""
    return float(degrees * (1 - 2 / (9 * degrees) + 3.0902 * (2 / (9 * degrees)) ** 0.5) ** 3)


@pytest.mark.parametrize("over", ["seeds", "positions"])
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(seed=0),
        SamplingParams(seed=0, temperature=1.8, top_k=12),
        SamplingParams(seed=0, temperature=0.7, top_p=0.8),
        SamplingParams(seed=0, min_p=0.1, top_k=20, top_p=0.95, presence_penalty=0),
    ],
)
def test_frequencies_follow_the_distribution(params, over, reference, bench):
    draws, vocab = 20_000, 30
    logits = np.random.default_rng(3).normal(0, 1, vocab).astype(np.float32)
    b = bench(vocab, draws if over == "seeds" else 1, max_length=2, top=0)
    if over == "seeds":
        for row in range(draws):
            b.sampler.admit(row, SamplingParams(**{**_fields(params), "seed": row}), [0])
        rows, positions = np.arange(draws, dtype=np.int32), np.ones(draws, np.int32)
    else:
        b.sampler.admit(0, params, [0])
        rows, positions = np.zeros(draws, np.int32), np.arange(draws, dtype=np.int32)
    out = type(b.out).allocate(draws)
    b.sampler.sample(np.tile(logits, (draws, 1)), rows, positions, out)

    expected = reference.probabilities(logits.astype(np.float64), params) * draws
    counts = np.bincount(out.token_ids, minlength=vocab)
    kept = expected > 0
    assert np.all(counts[~kept] == 0)
    statistic = float(((counts[kept] - expected[kept]) ** 2 / expected[kept]).sum())
    assert statistic < chi_square_limit(int(kept.sum()) - 1)


def _fields(params: SamplingParams) -> dict[str, Any]:
    return {name: getattr(params, name) for name in params.__struct_fields__}
