"""A state that comes with an output against one that has taken every token of it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.demo import DEMO_DIR
from model.sampling import SamplingParams
from model.tokenizer import load_tokenizer
from pipeline.sampling.text_state import TextState
from pipeline.wire.delta import FinishReason
from pipeline.wire.request import MAX_STOP_LENGTH, Assign, Request
from tests.pipeline.stages import write_byte_tokenizer

END_IDS = (2,)


@pytest.fixture(scope="module", params=["bytes", "demo"])
def tokenizer(request, tmp_path_factory):
    if request.param == "demo":
        return load_tokenizer(DEMO_DIR)
    return load_tokenizer(write_byte_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def assign(prompt, output, params):
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


@settings(deadline=None, max_examples=250)
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
    there = assign(prompt, output, Request(sampling, 10**6, stops, data.draw(st.booleans()), skip))
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
    there = assign([1, 5], output, Request(SamplingParams(), 10**6, (sign * length,)))
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


@pytest.mark.parametrize("stop", [(), ("END", "\nUser:")])
def test_no_more_is_read_than_can_matter(tokenizer, stop):
    words = tokenizer.encode("so much before " * 500, add_special=False)
    looked_at = []
    for length in (200, len(words)):
        counting = Counting(tokenizer)
        TextState.of(assign(words[:length], words[:length], Request(SamplingParams(), 9, stop)), counting)
        looked_at.append(counting.looked_at)
    assert max(looked_at) < 100


def test_a_stop_token_of_the_request_counts_though_it_is_an_end_token_that_it_ignores(tokenizer):
    ends = Request(SamplingParams(stop_token_ids=END_IDS), 9, ignore_eos=True)
    assert TextState.of(assign([1], [], ends), tokenizer).take(END_IDS[0]).reason is FinishReason.STOP
    for ignored, reason in ((True, FinishReason.NONE), (False, FinishReason.EOS)):
        request = Request(SamplingParams(), 9, ignore_eos=ignored)
        assert TextState.of(assign([1], [], request), tokenizer).take(END_IDS[0]).reason is reason


def test_a_delta_brings_its_attempt_back(tokenizer):
    delta = TextState.of(assign([1], [5, 6], Request(SamplingParams(), 9)), tokenizer).take(7)
    assert (delta.request, delta.attempt, delta.index) == (1, 3, 3)
