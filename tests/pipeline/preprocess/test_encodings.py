"""Texts of which nothing is generated: encoded at once or in a thread of their own, their ids asked for in pieces."""

from __future__ import annotations

import pytest

from pipeline.preprocess.encodings import PIECE
from pipeline.preprocess.intake import AT_ONCE
from pipeline.stats import PreprocessCounter
from pipeline.wire.request import Accepted, Cancel, Encode, Encoded, GoOn, Refused, ids_of
from tests.pipeline.preprocess.conftest import submit
from tests.pipeline.preprocess.test_intake import desk
from tests.pipeline.preprocess.test_prompts import wait_for_word

__all__ = ["desk"]  # a fixture

MANY = 1 << 20


def encode(text, request=1, *, most=MANY, **options):
    return Encode(request, 3, text, most, **options)


def test_a_short_text_is_encoded_at_once(desk, tokenizer, counters):
    seen = []
    tokenizer.inside = lambda: seen.append(counters.get(PreprocessCounter.IN_HAND))
    (reply,) = desk.take(encode("short", 7))
    assert reply == Encoded(7, 3, 5, reply.ids, last=True)
    assert ids_of(reply.ids).tolist() == tokenizer.encode("short")
    assert seen == [7]
    assert desk.take(GoOn(7)) == []


@pytest.mark.parametrize(("text", "count"), [("", 0), ("x", 1)])
def test_very_short_ones(desk, text, count):
    (reply,) = desk.take(encode(text))
    assert (reply.count, len(reply.ids), reply.last) == (count, 4 * count, True)


@pytest.mark.parametrize("size", [2 * PIECE, 2 * PIECE + 1, 3 * PIECE - 1])
def test_ids_come_in_pieces_when_they_are_asked_for(desk, tokenizer, size):
    text = ("abcdefg" * size)[:size]
    assert desk.take(encode(text)) == []
    replies = desk.finish()
    assert desk.take(submit("short", 2)) == [Accepted(2, 0, 5)]  # nothing comes by itself
    while not replies[-1].last:
        replies += desk.take(GoOn(1))
    assert {len(reply.ids) // 4 for reply in replies[:-1]} == {PIECE}
    assert len(replies) == -(-size // PIECE)
    assert {(reply.request, reply.attempt, reply.count) for reply in replies} == {(1, 3, size)}
    assert [one for reply in replies for one in ids_of(reply.ids).tolist()] == tokenizer.encode(text)
    assert desk.take(GoOn(1)) == []


@pytest.mark.parametrize("size", [10, AT_ONCE + 10])
@pytest.mark.parametrize("most", [0, 9])
def test_of_too_many_ids_only_the_number_is_told(desk, size, most):
    replies = desk.take(encode("x" * size, most=most)) or desk.finish()
    assert replies == [Encoded(1, 3, size, b"", last=True)]


def test_one_that_the_tokenizer_fails_on_is_refused(desk):
    refusal = Refused(1, 3, 500, "the tokenizer failed on this prompt", "prompt")
    assert desk.take(encode("broken")) == [refusal]
    desk.take(encode("broken" + "x" * AT_ONCE))
    assert desk.finish() == [refusal]
    assert len(desk.take(encode("works"))) == 1


def test_no_prompt_waits_for_a_text_and_what_is_worked_on_is_known(desk, tokenizer, counters):
    desk.take(encode("held" + "x" * AT_ONCE, 5))
    wait_for_word(counters, PreprocessCounter.ENCODING, 5)
    assert desk.take(submit("y" * AT_ONCE, 2)) == []
    assert desk.finish() == [Accepted(2, 0, AT_ONCE)]
    tokenizer.gates["held"].set()
    assert [reply.count for reply in desk.finish()] == [AT_ONCE + 4]
    wait_for_word(counters, PreprocessCounter.ENCODING, 0)


@pytest.mark.parametrize("forget", [lambda desk: desk.take(Cancel(1)), lambda desk: desk.pool.clear()])
def test_one_that_nobody_wants_any_more_is_forgotten(desk, tokenizer, counters, forget):
    desk.take(encode("held" + "x" * AT_ONCE, 1))
    desk.take(encode("never begun" + "x" * AT_ONCE, 2))
    wait_for_word(counters, PreprocessCounter.ENCODING, 1)
    forget(desk)
    desk.take(Cancel(2))
    tokenizer.gates["held"].set()
    desk.take(encode("last" + "x" * AT_ONCE, 3))
    assert [reply.request for reply in desk.finish()] == [3]
    assert not any(text.startswith("never") for text in tokenizer.texts)
    assert desk.dropped == []  # sampling has never heard of it


def test_one_that_is_cancelled_between_two_pieces(desk):
    desk.take(encode("x" * (2 * PIECE)))
    assert not desk.finish()[0].last
    desk.take(Cancel(1))
    assert desk.take(GoOn(1)) == []
