"""Ties, extremes, faults and determinism."""

from multiprocessing import shared_memory
from threading import Thread
from typing import Any

import msgspec
import numpy as np
import pytest

from model.sampling import (
    ParameterError,
    RowStatus,
    SampleOutputs,
    Sampler,
    SamplingLimits,
    SamplingParams,
    _kernels,
    explain,
)

GREEDY = SamplingParams(temperature=0)
VOCAB = 3000
MIXED = [
    GREEDY,
    SamplingParams(seed=1),
    SamplingParams(seed=2, top_k=40),
    SamplingParams(seed=3, top_p=0.9),
    SamplingParams(seed=4, top_k=700, top_p=0.7, min_p=0.01, temperature=1.4),
    SamplingParams(seed=5, repetition_penalty=1.2, presence_penalty=0.5, frequency_penalty=0.2),
    SamplingParams(temperature=0, logit_bias={7: 5.0}, banned_token_ids=(1, 2), logprobs=3),
]


@pytest.fixture
def logits():
    return np.random.default_rng(11).normal(0, 2, (len(MIXED), VOCAB)).astype(np.float32)


def generate(b, logits_of_step, rows, steps=12):
    return [b.sample(logits_of_step(step), rows) for step in range(steps)]


# greedy, ties and extremes


@pytest.mark.parametrize("vocab", [1, 16, 600, 32000])
def test_greedy_takes_the_lowest_id_of_equal_logits(bench, vocab):
    b = bench(vocab, 3, top=0)
    for row in range(3):
        b.admit(row, GREEDY)
    x = np.zeros((3, vocab), np.float32)
    x[1, vocab // 2] = x[1, -1] = 1
    x[2] = -1
    x[2, -1] = -0.5
    assert b.sample(x).tolist() == [0, vocab // 2, vocab - 1]


def test_top_k_1_and_a_tiny_top_p_are_greedy_at_any_temperature(bench, logits):
    b = bench(VOCAB, len(logits))
    for row in range(len(logits)):
        b.admit(row, SamplingParams(temperature=2.0, seed=row, **({"top_k": 1} if row % 2 else {"top_p": 1e-9})))
    assert np.array_equal(b.sample(logits), logits.argmax(axis=1))


@pytest.mark.parametrize("off", [{"top_k": 0}, {"top_k": -1}, {"top_k": VOCAB}, {"top_p": 1}, {"min_p": 0}])
def test_values_that_mean_off_change_nothing(bench, logits, off):
    b = bench(VOCAB, 2)
    b.admit(0, SamplingParams(seed=9))
    b.admit(1, SamplingParams(seed=9, **off))
    for row in range(len(logits)):
        first, second = b.sample(np.stack([logits[row], logits[row]]))
        assert first == second


def test_top_k_keeps_all_that_equal_the_kth(bench):
    b = bench(64, 500, top=0)
    for row in range(500):
        b.admit(row, SamplingParams(seed=row, top_k=2))
    x = np.full((500, 64), -5, np.float32)
    x[:, [10, 20, 30, 40]] = 3
    assert set(b.sample(x).tolist()) == {10, 20, 30, 40}


def test_top_p_keeps_the_lowest_ids_of_equal_tokens(bench):
    b = bench(64, 500, top=0)
    for row in range(500):
        b.admit(row, SamplingParams(seed=row, top_p=0.5))
    assert set(b.sample(np.zeros((500, 64), np.float32)).tolist()) == set(range(32))


@pytest.mark.parametrize("temperature", [1e-5, 1e-3, 1e6, 1e300])
def test_extreme_temperatures_and_logits_stay_finite(bench, temperature):
    b = bench(600, 4)
    x = np.random.default_rng(0).normal(0, 1, (4, 600)).astype(np.float32)
    x[1] *= np.float32(3e37)
    x[2] = -3e38
    x[3] = [3.4e38, -3.4e38] * 300
    for row in range(4):
        b.admit(row, SamplingParams(temperature=temperature, seed=row, banned_token_ids=(0,), logprobs=1))
    tokens = b.sample(x)
    assert b.out.status.tolist() == [RowStatus.OK] * 4
    assert np.all((tokens > 0) & (tokens < 600))
    assert x[3, tokens[3]] > 0 or temperature >= 1e6


# bias, minimum length, penalties


def test_banned_tokens_never_come_and_stop_tokens_only_after_the_minimum(bench):
    b = bench(8, 1)
    b.admit(0, SamplingParams(temperature=0, banned_token_ids=(7,), min_tokens=3, stop_token_ids=(6,)), [1, 2])
    x = np.arange(8, dtype=np.float32)[None]
    assert [int(b.sample(x)[0]) for _ in range(5)] == [5, 5, 5, 6, 6]


def test_prompt_counts_for_repetition_and_only_output_for_presence_and_frequency(bench):
    x = np.zeros((3, 6), np.float32)
    x[:, 3], x[:, 4] = 1.0, 0.9
    b = bench(6, 3)
    b.admit(0, SamplingParams(temperature=0, repetition_penalty=1.5), [3])
    b.admit(1, SamplingParams(temperature=0, presence_penalty=0.2), [3])
    b.admit(2, SamplingParams(temperature=0, frequency_penalty=0.06), [3])
    steps = [b.sample(x).tolist() for _ in range(4)]
    assert [step[0] for step in steps] == [4, 3, 3, 3]  # 1/1.5 = 0.67 against 0.9, then 0.6
    assert [step[1] for step in steps] == [3, 4, 3, 3]  # present once is present: 0.8 against 0.7
    assert [step[2] for step in steps] == [3, 3, 4, 3]  # 1, 0.94, 0.88 | 0.9, then 0.84


def test_a_row_forgets_its_predecessor(bench):
    b = bench(6, 1)
    x = np.array([[0, 0, 0, 1.0, 0.9, 0]], np.float32)
    b.admit(0, SamplingParams(temperature=0, repetition_penalty=2.0, logit_bias={5: 9}, logprobs=2), [3, 4])
    assert b.sample(x)[0] == 5
    b.admit(0, SamplingParams(temperature=0, repetition_penalty=2.0), [1])
    assert b.sample(x)[0] == 3
    assert np.isnan(b.out.logprobs[0])
    assert np.all(b.out.top_ids == -1)


# log-probabilities


def test_logprobs_are_of_the_raw_logits_and_only_as_many_as_asked_for(bench, reference, logits):
    b = bench(VOCAB, len(logits), top=5)
    for row in range(len(logits)):
        b.admit(row, SamplingParams(temperature=0.5, top_k=3, seed=row, logit_bias={9: 50}, logprobs=row % 3))
    tokens = b.sample(logits)
    assert set(tokens.tolist()) == {9}
    for row, x in enumerate(logits):
        asked = row % 3
        assert b.out.logprobs[row] == pytest.approx(reference.logprobs(x)[9], abs=1e-5)
        assert b.out.top_ids[row].tolist() == [*np.argsort(-x)[:asked], *[-1] * (5 - asked)]
        assert np.isnan(b.out.top_logprobs[row, asked:]).all()


# determinism


def alone_and_together(bench, logits_of_step, width=0):
    together = bench(VOCAB, len(MIXED), width=width)
    for row, params in enumerate(MIXED):
        together.admit(row, params, [row, 5, 6])
    batch = np.stack(generate(together, logits_of_step, None))
    for row, params in enumerate(MIXED):
        alone = bench(VOCAB, len(MIXED), width=width)
        alone.admit(3, params, [row, 5, 6])
        single = generate(alone, lambda step, row=row: logits_of_step(step)[row : row + 1], [3])
        yield batch[:, row].tolist(), [int(tokens[0]) for tokens in single]


def test_a_row_gets_the_same_tokens_alone_in_any_row_and_in_company(bench, logits):
    for batch, single in alone_and_together(bench, lambda step: np.roll(logits, step * 7, axis=1)):
        assert batch == single


@pytest.mark.parametrize("width", [4, 8, 16])
def test_every_instruction_set_gives_the_same_tokens_and_logprobs(bench, logits, width):
    def run(width):
        b = bench(VOCAB, len(MIXED), width=width)
        for row, params in enumerate(MIXED):
            b.admit(row, params, [row, 5, 6])
        tokens = generate(b, lambda step: np.roll(logits, step * 7, axis=1), None, steps=40)
        return np.stack(tokens), b.out.logprobs, b.out.top_logprobs

    try:
        other = run(width)
    except ValueError as error:
        pytest.skip(str(error))
    for ours, theirs in zip(run(0), other, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("params", MIXED)
def test_a_sequence_resumed_in_the_middle_goes_on_as_if_nothing_had_happened(bench, logits, params):
    x = logits[:1]
    whole = bench(VOCAB, 1)
    whole.admit(0, params, [4, 4, 8])
    expected = [int(whole.sample(np.roll(x, step, axis=1))[0]) for step in range(20)]
    resumed = bench(VOCAB, 1)
    resumed.admit(0, params, [4, 4, 8], expected[:9])
    rest = [int(resumed.sample(np.roll(x, step, axis=1))[0]) for step in range(9, 20)]
    assert rest == expected[9:]


@pytest.mark.parametrize("seed", [None, -1])
def test_a_seed_is_given_with_the_parameters_or_beside_them(seed):
    """Whoever admits a request draws it: a sampler that drew its own could not go on with a text."""
    sampler = Sampler(SamplingLimits(10, 10), 1)
    with pytest.raises(ParameterError, match="seed"):
        sampler.admit(0, SamplingParams(seed=seed), [1])
    sampler.admit(0, SamplingParams(temperature=0, seed=seed), [1])  # nothing is drawn
    for params, given in ((SamplingParams(seed=2**64 - 5), None), (SamplingParams(seed=7), 2**64 - 5)):
        sampler.admit(0, params, [1], seed=given)
        assert sampler.columns["seed"][0] == 2**64 - 5


def test_end_tokens_of_the_model_are_held_back_with_the_requests_own(bench):
    b = bench(10, 1)
    x = np.arange(10, dtype=np.float32)[None]
    params = SamplingParams(temperature=0, min_tokens=2, stop_token_ids=(9,))
    b.sampler.admit(0, params, [1], end_ids=(8, 9))
    position = np.ones(1, np.int32)
    for expected in (7, 7, 9):
        b.sampler.sample(x, b.rows, position, b.out)
        assert b.out.token_ids[0] == expected
        position += 1


# faults


@pytest.mark.parametrize(
    ("value", "status"),
    [(np.nan, RowStatus.NAN), (np.inf, RowStatus.INFINITE), (-np.inf, RowStatus.INFINITE)],
)
@pytest.mark.parametrize("at", [0, 700, VOCAB - 1])
def test_a_bad_row_gets_an_error_and_the_others_do_not_notice(bench, logits, value, status, at):
    clean = bench(VOCAB, len(MIXED))
    dirty = bench(VOCAB, len(MIXED))
    for row, params in enumerate(MIXED):
        clean.admit(row, params)
        dirty.admit(row, params)
    expected = clean.sample(logits)
    for bad in range(len(MIXED)):
        spoiled = logits.copy()
        spoiled[bad, at] = value
        for row, params in enumerate(MIXED):
            dirty.admit(row, params)
        tokens = dirty.sample(spoiled)
        others = np.arange(len(MIXED)) != bad
        assert dirty.out.status[bad] == status
        assert tokens[bad] == -1
        assert np.all(dirty.out.status[others] == RowStatus.OK)
        assert np.array_equal(tokens[others], expected[others])
        assert str(at) in explain(status, spoiled[bad])


def test_a_row_in_which_everything_is_masked_is_an_error(bench):
    b = bench(4, 2)
    b.admit(0, SamplingParams(seed=1, banned_token_ids=(0, 1, 2, 3), logprobs=2))
    b.admit(1, GREEDY)
    tokens = b.sample(np.ones((2, 4), np.float32))
    assert b.out.status.tolist() == [RowStatus.ALL_MASKED, RowStatus.OK]
    assert tokens.tolist() == [-1, 0]
    assert np.all(b.out.top_ids[0] == -1)


def test_a_penalty_that_overflows_is_an_error_of_that_row(bench):
    b = bench(4, 1)
    b.admit(0, SamplingParams(temperature=0, repetition_penalty=1e-9), [2])
    x = np.array([[0, 0, 1e30, 0]], np.float32)
    assert b.sample(x)[0] == -1
    assert b.out.status[0] == RowStatus.INFINITE
    assert "penalty" in explain(RowStatus.INFINITE, x[0])


def test_more_distinct_tokens_than_max_length_is_an_error_of_that_row(bench):
    b = bench(50, 1, max_length=4)
    b.admit(0, SamplingParams(temperature=0, repetition_penalty=9.0), [1, 2, 3])
    x = np.arange(1, 51, dtype=np.float32)[None]
    b.sample(x)
    assert b.out.status[0] == RowStatus.OK
    b.sample(x)
    assert b.out.status[0] == RowStatus.HISTORY_FULL


def test_skipped_rows_are_marked_and_keep_their_state(bench, logits):
    b = bench(VOCAB, 2)
    b.admit(0, GREEDY)
    b.admit(1, SamplingParams(temperature=0, repetition_penalty=1.5))
    assert b.sample(logits[:2], [-1, 0]).tolist() == [-1, int(logits[1].argmax())]
    assert b.out.status.tolist() == [RowStatus.SKIPPED, RowStatus.OK]
    assert b.sampler.columns["seen_count"][1] == 1


@pytest.mark.parametrize("right", range(4))
def test_nothing_is_chosen_behind_a_draft_that_is_wrong(bench, logits, right):
    """Of a row's four positions: those whose drafts were right, and one more; and its history has these alone."""
    params = SamplingParams(temperature=0, repetition_penalty=1.5, logprobs=1)
    alone, together = bench(VOCAB, 2), bench(VOCAB, 2)
    for b in (alone, together):
        for row in (0, 1):
            b.admit(row, params)
    wanted = [int(alone.sample(logits[at : at + 1], [1])[0]) for at in range(right + 1)]
    drafts = np.array([*[*wanted[:right], VOCAB - 1, 5, 5][:3], -1, -1], np.int32)
    rows, positions = np.array([1, 1, 1, 1, 0], np.int32), np.arange(5, dtype=np.int32)
    out, x = SampleOutputs.allocate(5, 1), np.ascontiguousarray(logits[[0, 1, 2, 3, 0]])
    together.sampler.choose(x, rows, positions, out, drafts)
    together.sampler.compute_logprobs(x, rows, positions, out)
    held = min(right + 1, 4)
    assert out.token_ids.tolist() == [*wanted[:held], *[-1] * (4 - held), int(logits[0].argmax())]
    assert out.status.tolist() == [RowStatus.OK] * held + [RowStatus.SKIPPED] * (4 - held) + [RowStatus.OK]
    assert np.isfinite(out.logprobs).tolist() == [token >= 0 for token in out.token_ids]
    assert together.sampler.columns["seen_count"][1] == alone.sampler.columns["seen_count"][1]


def test_drafts_must_fit_the_rows(bench, logits):
    b, out = bench(VOCAB, 1), SampleOutputs.allocate(1)
    one = np.zeros(1, np.int32)
    with pytest.raises(ValueError, match=r"drafts must be int32 \[1\]"):
        b.sampler.choose(logits[:1], one, one, out, np.zeros(2, np.int32))


def test_logits_are_read_in_place_from_shared_memory_and_never_written(bench, logits):
    segment = shared_memory.SharedMemory(create=True, size=logits.nbytes)
    try:
        assert segment.buf is not None
        view = np.frombuffer(segment.buf, np.float32).reshape(logits.shape)
        view[:] = logits
        view.flags.writeable = False
        b = bench(VOCAB, len(MIXED))
        for row, params in enumerate(MIXED):
            b.admit(row, params)
        b.sample(view)
        assert np.all(b.out.status == RowStatus.OK)
        assert np.array_equal(view, logits)
        del view
    finally:
        segment.close()
        segment.unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": np.zeros((2, 9), np.float32)}, r"logits must be float32 \[2, 10\]"),
        ({"logits": np.zeros((2, 10), np.float64)}, "logits"),
        ({"logits": np.zeros((2, 10), np.int32)}, "logits must be float32"),
        ({"logits": np.zeros((2, 20), np.float32)[:, ::2]}, "contiguous"),
        ({"rows": np.array([0, 2], np.int32)}, r"rows\[1\] is 2 \(expected -1 to 1\)"),
        ({"rows": np.array([0, 1], np.int64)}, "rows"),
        ({"positions": np.array([0, -1], np.int32)}, r"positions\[1\] is -1"),
        ({"positions": np.zeros(3, np.int32)}, r"positions must be int32 \[2\]"),
        ({"out": SampleOutputs.allocate(3, 2)}, "token_ids"),
        ({"out": SampleOutputs.allocate(2, 1)}, "row 1 wants the 2 best tokens, top_ids has room for 1"),
    ],
)
def test_wrong_arrays_are_refused_and_named(change, message):
    sampler = Sampler(SamplingLimits(10, 10), 2)
    sampler.admit(0, GREEDY, [1])
    sampler.admit(1, SamplingParams(seed=1, logprobs=2), [1])
    arrays: dict[str, Any] = {
        "logits": np.zeros((2, 10), np.float32),
        "rows": np.arange(2, dtype=np.int32),
        "positions": np.ones(2, np.int32),
        "out": SampleOutputs.allocate(2, 2),
    }
    with pytest.raises((ValueError, BufferError), match=message):
        sampler.sample(**{**arrays, **change})
    assert np.all(arrays["out"].status == RowStatus.SKIPPED)
    sampler.sample(**arrays)
    assert np.all(arrays["out"].status == RowStatus.OK)


def test_two_threads_at_once_are_refused_or_take_turns(bench):
    b = bench(200_000, 4, top=0)
    for row in range(4):
        b.admit(row, SamplingParams(seed=row))
    x = np.random.default_rng(0).normal(0, 1, (4, 200_000)).astype(np.float32)
    expected = b.sample(x).tolist()
    found, refused = [], []

    def work():
        out = SampleOutputs.allocate(4)
        for _ in range(20):
            try:
                b.sampler.sample(x, b.rows, np.ones(4, np.int32), out)
                found.append(out.token_ids.tolist())
            except RuntimeError as error:
                refused.append(str(error))

    threads = [Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) + len(refused) == 60
    assert all(tokens == expected for tokens in found)
    assert set(refused) <= {"another thread is sampling with this sampler"}


def test_wrong_admissions_are_refused():
    sampler = Sampler(SamplingLimits(10, 10), 2)
    with pytest.raises(ValueError, match="row is 2, expected 0 to 1"):
        sampler.admit(2, GREEDY, [1])
    with pytest.raises(ValueError, match="token id 10 at 1 is not in 0 to 9"):
        sampler.admit(0, SamplingParams(seed=1, repetition_penalty=2.0), [1, 10])
    for token in (-1, 10):
        with pytest.raises(ValueError, match=f"token id {token} is not in 0 to 9"):
            sampler.admit(0, SamplingParams(temperature=0, banned_token_ids=(token,)), [1])
    with pytest.raises(ParameterError, match=r"1025 tokens.*at most 1024"):
        sampler.admit(0, SamplingParams(temperature=0, logit_bias={1: 1.0}, banned_token_ids=(2,) * 1024), [1])
    with pytest.raises(ParameterError, match="top_p"):
        SamplingParams(top_p=0).validate(sampler.limits)
    with pytest.raises(ValueError, match="at least 1"):
        Sampler(SamplingLimits(10, 10), 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1.0, 0.0, 1e-320, 1e300])
@pytest.mark.parametrize("name", _kernels.PARAMETERS)
def test_a_number_that_nobody_has_checked_does_no_harm_beyond_its_row(bench, logits, name, value):
    b = bench(VOCAB, 2)
    params = {"temperature": 1.0, "top_k": 40, "top_p": 0.9, "min_p": 0.01, "frequency_penalty": 0.1}
    b.admit(0, SamplingParams(seed=1, **{**params, name: value}), [1, 2])
    b.admit(1, SamplingParams(seed=2), [1, 2])
    alone = bench(VOCAB, 2)
    alone.admit(1, SamplingParams(seed=2), [1, 2])
    for _ in range(3):
        token = b.sample(logits[:2])
        assert -1 <= token[0] < VOCAB
        assert token[1] == alone.sample(logits[1:2], [1])[0]


def test_tokens_first_and_log_probabilities_later_are_the_same() -> None:
    """In two calls as in one: `choose`, then `compute_logprobs`."""
    logits = np.random.default_rng(3).normal(size=(4, 300)).astype(np.float32)
    logits[2, 7] = np.nan
    params = [SamplingParams(temperature=0, logprobs=3), SamplingParams(seed=5), SamplingParams(seed=6, logprobs=0)]
    rows, positions = np.array([0, 1, 2, -1], np.int32), np.full(4, 9, np.int32)
    together, apart = (SampleOutputs.allocate(4, 3) for _ in range(2))
    for out, calls in ((together, ("sample",)), (apart, ("choose", "compute_logprobs"))):
        sampler = Sampler(SamplingLimits(300, 64), 3)
        for row, each in enumerate(params):
            sampler.admit(row, msgspec.structs.replace(each, repetition_penalty=1.3), [1, 2])
        for call in calls:
            getattr(sampler, call)(logits, rows, positions, out)
    for name in ("token_ids", "status", "logprobs", "top_ids", "top_logprobs"):
        np.testing.assert_array_equal(getattr(apart, name), getattr(together, name), err_msg=name)
    assert apart.status.tolist() == [RowStatus.OK, RowStatus.OK, RowStatus.NAN, RowStatus.SKIPPED]
    assert np.isfinite(apart.logprobs[0])
    assert np.isnan(apart.logprobs[1:]).all()


def test_only_tokens_of_the_vocabulary_are_told_about() -> None:
    sampler, out = Sampler(SamplingLimits(300, 64), 1), SampleOutputs.allocate(1)
    sampler.admit(0, SamplingParams(temperature=0, logprobs=0), [1])
    out.status[:], out.token_ids[:] = RowStatus.OK, 300
    row = np.zeros(1, np.int32)
    with pytest.raises(ValueError, match=r"token_ids\[0\] is 300, expected 0 to 299"):
        sampler.compute_logprobs(np.zeros((1, 300), np.float32), row, row, out)
