"""Which request has which row from which step on, and who is served no more; and a request's text: a state that comes
with an output against one that has taken every token of it."""

from __future__ import annotations

import functools

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.demo import DEMO_DIR
from model.grammar import Vocabulary
from model.sampling import SamplingParams
from model.tokenizer import load_tokenizer
from pipeline.sampling.chooser import PendingAdmits
from pipeline.sampling.grammars import RowGrammars
from pipeline.sampling.rows import Rows, TextState
from pipeline.sampling.verifier import Verifier
from pipeline.wire.delta import FinishReason
from pipeline.wire.request import MAX_STOP_LENGTH, Assign, Drop, Request
from pipeline.wire.step import Shapes
from tests.examples import examples
from tests.pipeline.stages import write_byte_tokenizer

END_IDS = (2,)
VERIFIER = Verifier(Shapes(token_budget=8, max_rows=4, block_table_width=2, vocab_size=16), max_length=8)


@pytest.fixture(scope="module", params=["bytes", "demo"])
def tokenizer(request, tmp_path_factory):
    if request.param == "demo":
        return load_tokenizer(DEMO_DIR)
    return load_tokenizer(write_byte_tokenizer(tmp_path_factory.mktemp("tokenizer")))


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
    return PendingAdmits(sampler, None, VERIFIER)


@pytest.fixture
def rows(pending, tmp_path):
    tokenizer = load_tokenizer(write_byte_tokenizer(tmp_path))
    return Rows(4, tokenizer, pending, RowGrammars(pending, functools.partial(Vocabulary, tokenizer, 300, {0}), None))


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


def test_one_that_is_alone_has_its_row_before_its_step(rows):
    rows.change(assign(1, 2, step=5, epoch=3))
    rows.begin_alone()
    assert rows.select([2], [3]) == [2]
    rows.change(assign(2, 1, step=6, epoch=1))
    rows.begin_alone()  # there may be a step under way in which that row is another's
    assert rows.select([1], [1]) == [-1]
    rows.begin_step(6)
    assert rows.select([1, 2], [1, 3]) == [1, 2]


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


def assignment(prompt, output, params):
    prompt, output = (np.array(ids, np.int32).tobytes() for ids in (prompt, output))
    ends = () if params.ignore_eos else END_IDS
    return Assign(1, 3, 0, 0, 0, 10**6, None, ends, params.pack(), prompt, output)


def replayed(there, tokenizer):
    """The reference: every token of the output, one by one; None if one of them ended it."""
    state = TextState.of(msgspec.structs.replace(there, output=b""), tokenizer)
    for token in there.output_ids.tolist():
        state.take(token)
        if state.finished:
            return None
    return state


def state(state):
    plain = {name: getattr(state, name) for name in TextState.__slots__ if name not in ("text", "stops")}
    return plain, state.text._state(), state.stops._held, state.stops.matched


@examples(250)
@given(data=st.data())
def test_any_output(tokenizer, data):
    """Half characters, special tokens and ids that do not exist, in runs; stop strings out of what comes next."""
    pool = [*range(1, 280), *sorted(tokenizer.special_ids - set(END_IDS)), *tokenizer.encode(" a  b 中😀"), 10**6]
    run = st.tuples(st.sampled_from(pool), st.sampled_from([1, 1, 1, 2, 5, 40]))
    prompt, output, later = (
        [token for token, count in data.draw(st.lists(run, max_size=most)) for _ in range(count)]
        for most in (3, 12, 8)
    )
    skip = data.draw(st.booleans())
    text = tokenizer.decode([*output, *later], skip_special=skip)
    begin, length = data.draw(st.integers(0, len(text))), data.draw(st.sampled_from([1, 2, 3, 8, 60, 400]))
    stops = tuple(filter(None, (text[begin : begin + length], data.draw(st.text(max_size=3)))))
    min_tokens = data.draw(st.integers(0, len(output) + len(later)))
    sampling = SamplingParams(min_tokens=min_tokens)
    there = assignment(prompt, output, Request(sampling, 10**6, stops, data.draw(st.booleans()), skip))
    expected = replayed(there, tokenizer)
    if expected is None:
        return
    got = TextState.of(there, tokenizer)
    assert state(got) == state(expected)
    for token in later:
        assert got.take(token).pack() == expected.take(token).pack()
        if got.finished:
            break


@pytest.mark.parametrize("length", [2, MAX_STOP_LENGTH])
@pytest.mark.parametrize("sign", ["x", "中", "😀"])
def test_a_stop_string_that_is_almost_complete(tokenizer, sign, length):
    """As long as one may be, and of characters of one byte and of four."""
    output = tokenizer.encode("so much before " * 50 + sign * (length - 1), add_special=False)
    there = assignment([1, 5], output, Request(SamplingParams(), 10**6, (sign * length,)))
    got, expected = TextState.of(there, tokenizer), replayed(there, tokenizer)
    assert state(got) == state(expected)
    assert got.stops._held
    last = [got.take(token).reason for token in tokenizer.encode(sign, add_special=False)]
    assert FinishReason.STOP in last


class Counting:
    """Counts how many tokens are looked at."""

    def __init__(self, tokenizer):
        self.rules, self.looked_at, self._tokenizer = tokenizer.rules, 0, tokenizer

    def piece(self, token_id, **options):
        self.looked_at += 1
        return self._tokenizer.piece(token_id, **options)


def test_the_last_token_says_which_stop_string_it_was(tokenizer):
    ids = tokenizer.encode(" a ring", add_special=False)
    state = TextState.of(assignment([1], [], Request(SamplingParams(), 99, ("no", "ring"))), tokenizer)
    deltas = [state.take(token) for token in ids]
    assert [delta.stop for delta in deltas] == [-1] * (len(ids) - 1) + [1]
    plain = TextState.of(assignment([1], [], Request(SamplingParams(stop_token_ids=(ids[0],)), 99)), tokenizer)
    assert (last := plain.take(ids[0])).reason is FinishReason.STOP
    assert last.stop == -1


@pytest.mark.parametrize("stop", [(), ("END", "\nUser:")])
def test_no_more_is_read_than_can_matter(tokenizer, stop):
    words = tokenizer.encode("so much before " * 500, add_special=False)
    looked_at = []
    for length in (200, len(words)):
        counting = Counting(tokenizer)
        TextState.of(assignment(words[:length], words[:length], Request(SamplingParams(), 9, stop)), counting)
        looked_at.append(counting.looked_at)
    assert max(looked_at) < 100


def test_a_stop_token_of_the_request_counts_though_it_is_an_end_token_that_it_ignores(tokenizer):
    ends = Request(SamplingParams(stop_token_ids=END_IDS), 9, ignore_eos=True)
    assert TextState.of(assignment([1], [], ends), tokenizer).take(END_IDS[0]).reason is FinishReason.STOP
    for ignored, reason in ((True, FinishReason.NONE), (False, FinishReason.EOS)):
        request = Request(SamplingParams(), 9, ignore_eos=ignored)
        assert TextState.of(assignment([1], [], request), tokenizer).take(END_IDS[0]).reason is reason


def test_a_delta_brings_its_attempt_back(tokenizer):
    delta = TextState.of(assignment([1], [5, 6], Request(SamplingParams(), 9)), tokenizer).take(7)
    assert (delta.request, delta.attempt, delta.index) == (1, 3, 3)
