"""A row's mask: only what it allows is chosen, whatever else the row asks for."""

import numpy as np
import pytest

from model.sampling import RowStatus, SampleOutputs, Sampler, SamplingLimits, SamplingParams, _kernels, explain

GRAMMAR = {"grammar": "start: /a/"}  # what it says does not matter here
KINDS = [
    {"temperature": 0},
    {"seed": 3},
    {"seed": 4, "top_k": 5, "top_p": 0.8, "min_p": 0.01},
    {"seed": 5, "repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": -0.5},
    {"seed": 6, "logit_bias": {0: 50.0, 2: -3.0}, "banned_token_ids": (1,), "temperature": 0.7},
    {"temperature": 0, "min_tokens": 9, "stop_token_ids": (3,)},
]
WIDTHS = [0, 4, 8, 16]


def supported(width: int) -> bool:
    try:
        Sampler(SamplingLimits(1, 1), 1, width=width)
    except ValueError:
        return False
    return True


def pack(allowed):
    """``[rows, vocab]`` of bool as the words of masks."""
    rows, vocab = allowed.shape
    padded = np.zeros((rows, -(-vocab // 32) * 32), bool)
    padded[:, :vocab] = allowed
    return np.packbits(padded, axis=1, bitorder="little").view("<u4")


@pytest.mark.parametrize("vocab", [1, 3, 31, 32, 33, 47, 64, 511, 512, 600, 1009])
@pytest.mark.parametrize("width", WIDTHS)
def test_as_the_reference_chooses_among_what_is_allowed(bench, reference, width, vocab):
    if not supported(width):
        pytest.skip("this CPU has no such kernel")
    rng = np.random.default_rng(vocab)
    rows = len(KINDS)
    b = bench(vocab, rows, top=1, masks=True, width=width)
    kinds = [SamplingParams(**GRAMMAR, **kind) for kind in KINDS if vocab > 3 or "stop" not in str(kind)]
    kinds = [
        params for params in kinds if all(token < vocab for token in (*params.logit_bias, *params.banned_token_ids))
    ]
    prompt = [0]
    for row, params in enumerate(kinds):
        b.admit(row, params, prompt)
    for share in (0.02, 0.5, 0.98):
        x = rng.normal(0, 3, (len(kinds), vocab)).astype(np.float32)
        allowed = rng.random((len(kinds), vocab)) < share
        allowed[:, vocab - 1] = True
        for row, words in enumerate(pack(allowed)):
            b.sampler.mask(row)[:] = words
        before, outputs = b.positions[: len(kinds)], [list(output) for output in b.output]
        tokens = b.sample(x, range(len(kinds)))
        for row, params in enumerate(kinds):
            masked = np.where(allowed[row], x[row], -np.inf)
            x64 = reference.edit(masked, params, prompt, outputs[row])
            if np.all(x64 == -np.inf):
                assert b.out.status[row] == RowStatus.ALL_MASKED
                continue
            good = reference.acceptable(masked, params, int(before[row]), prompt=prompt, output=outputs[row])
            assert tokens[row] in good
            assert allowed[row, tokens[row]]


def test_a_mask_ends_with_its_row_and_allows_nothing_until_it_is_filled(bench):
    b = bench(40, 2, masks=True)
    b.admit(0, SamplingParams(temperature=0, **GRAMMAR))
    b.admit(1, SamplingParams(temperature=0))
    x = np.arange(80, dtype=np.float32).reshape(2, 40)
    assert b.sample(x).tolist() == [-1, 39]
    assert b.out.status.tolist() == [RowStatus.ALL_MASKED, RowStatus.OK]
    assert "no token that the grammar allows" in explain(RowStatus.ALL_MASKED, x[0], masked=True)
    assert "grammar" not in explain(RowStatus.ALL_MASKED, x[0])
    b.sampler.mask(0)[:] = (1 << 7, 0)
    assert b.sample(x).tolist() == [7, 39]
    b.admit(0, SamplingParams(temperature=0))
    assert b.sample(x).tolist() == [39, 39]


def test_log_probabilities_stay_those_of_the_raw_logits(bench, reference):
    b = bench(40, 1, masks=True)
    b.admit(0, SamplingParams(temperature=0, logprobs=1, **GRAMMAR))
    b.sampler.mask(0)[:] = (1 << 5, 0)
    x = np.random.default_rng(1).normal(0, 1, (1, 40)).astype(np.float32)
    assert b.sample(x).tolist() == [5]
    assert b.out.logprobs[0] == pytest.approx(reference.logprobs(x[0])[5], abs=1e-5)
    assert b.out.top_ids[0, 0] == x[0].argmax()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_fault_of_the_model_is_not_hidden_by_the_mask(bench, bad):
    b = bench(40, 1, masks=True)
    b.admit(0, SamplingParams(temperature=0, **GRAMMAR))
    b.sampler.mask(0)[:] = (1 << 5, 0)
    x = np.zeros((1, 40), np.float32)
    x[0, 9] = bad
    b.sample(x)
    assert b.out.status[0] == (RowStatus.NAN if np.isnan(bad) else RowStatus.INFINITE)


def test_bits_behind_the_vocabulary_are_not_looked_at(bench):
    b = bench(33, 1, masks=True)
    b.admit(0, SamplingParams(temperature=0, **GRAMMAR))
    b.sampler.mask(0)[:] = (0, 0xFFFFFFFE)
    b.sample(np.zeros((1, 33), np.float32))
    assert b.out.status[0] == RowStatus.ALL_MASKED


def test_a_sampler_without_masks_has_no_memory_for_them_and_says_so():
    sampler = Sampler(SamplingLimits(4096, 8), 2)
    assert sampler.columns["mask"].nbytes == 0
    assert sampler.mask(0).size == 0
    with pytest.raises(ValueError, match="made without masks"):
        sampler.admit(0, SamplingParams(temperature=0, **GRAMMAR), [1])
    assert Sampler(SamplingLimits(4097, 8), 2, masks=True).columns["mask"].shape == (2, 129)


def test_a_mask_that_is_too_narrow_allows_nothing_behind_it():
    """Whatever columns the kernel is given, it reads no further than they reach."""
    sampler = Sampler(SamplingLimits(100, 8), 1)
    columns = {name: array.copy() for name, array in sampler.columns.items()} | {"mask": np.zeros((1, 1), np.uint32)}
    columns["repetition_penalty"][:] = columns["masked"][:] = 1
    columns["mask"][:] = 1 << 31
    columns["logprobs"][:] = -1
    kernel, out = _kernels.Kernel(100, columns), SampleOutputs.allocate(1)
    x, zeros = np.arange(100, dtype=np.float32)[None], np.zeros(1, np.int32)
    kernel.sample(x, zeros, zeros + 1, out.token_ids, out.status, out.logprobs, out.top_ids, out.top_logprobs)
    assert out.token_ids.tolist() == [31]
