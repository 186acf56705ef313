"""Prompts in the threads: nobody waits for a giant, what is worked on can be seen, and what is cancelled is gone."""

from __future__ import annotations

import os
import select
import threading
from dataclasses import replace as replace_limits

from msgspec.structs import replace

from pipeline.preprocess.adapters import BASE, Adapter, adapters_of
from pipeline.preprocess.prompts import LONG, Job, PreprocessLimits, PromptReader
from pipeline.preprocess.sequence import Sequence
from pipeline.stats import PreprocessCounter
from pipeline.wire.request import Refused, too_long
from tests.pipeline.preprocess.conftest import LIMITS, WAIT_S, submit

GIANT = "held " + "x" * LONG


def take(pool):
    """The next prompt that is done, as the loop would wait for it."""
    while (job := pool.take()) is None:
        assert select.select([pool.fileno()], [], [], WAIT_S)[0], "no prompt got done"
        os.eventfd_read(pool.fileno())
    return job


def wait_for_word(counters, word, request):
    for _ in range(WAIT_S * 1000):
        if counters.get(word) == request:
            return
        threading.Event().wait(0.001)
    raise AssertionError(f"{word.name} is {counters.get(word)}, not {request}")


def test_a_prompt_of_usual_length_does_not_wait_for_a_giant(pool, reader, tokenizer, counters):
    pool.add(Job(submit(GIANT, 1), reader))
    wait_for_word(counters, PreprocessCounter.TOKENIZING_LONG, 1)
    pool.add(Job(submit("usual", 2), reader))
    (sequence,) = take(pool).results()
    assert sequence.request == 2
    assert sequence.tokens[: sequence.known].tolist() == tokenizer.encode("usual")
    assert (pool.requests, pool.characters) == (1, len(GIANT))
    tokenizer.gates["held"].set()
    (sequence,) = take(pool).results()
    assert (sequence.request, sequence.prompt) == (1, len(GIANT))
    assert len(sequence.digests) == len(GIANT) // 16  # the loop need not name blocks
    assert (pool.requests, pool.characters) == (0, 0)
    wait_for_word(counters, PreprocessCounter.TOKENIZING_LONG, 0)


def test_prompts_of_a_lane_keep_their_order(pool, reader, tokenizer):
    for request in range(1, 30):
        pool.add(Job(submit(f"prompt {request}", request), reader))
    assert [take(pool).results()[0].request for _ in range(1, 30)] == list(range(1, 30))


def test_all_choices_share_one_tokenization(pool, reader, tokenizer):
    pool.add(Job(submit("prompt", *range(1, 129)), reader))
    sequences = take(pool).results()
    assert [one.request for one in sequences] == list(range(1, 129))
    assert all(one.tokens[: one.known].tolist() == tokenizer.encode("prompt") for one in sequences)
    assert tokenizer.texts == ["prompt"]


def test_what_is_cancelled_while_it_waits_is_not_tokenized(pool, reader, tokenizer, counters):
    pool.add(Job(submit("held", 1), reader))
    wait_for_word(counters, PreprocessCounter.TOKENIZING, 1)
    waiting = Job(submit("waiting", 2), reader)
    pool.add(waiting)
    pool.add(Job(submit("shared", 3, 4), reader))
    assert pool.cancel(2)
    assert pool.cancel(3)
    assert not pool.cancel(2)  # it is gone
    assert not pool.cancel(77)
    assert waiting._submit is None  # nor is its text kept
    assert (pool.requests, pool.characters) == (2, len("held") + len("shared"))
    tokenizer.gates["held"].set()
    assert [one.request for one in take(pool).results()] == [1]
    assert [one.request for one in take(pool).results()] == [4]
    assert tokenizer.texts == ["held", "shared"]


def test_what_is_cancelled_while_it_is_tokenized_is_dropped(pool, reader, tokenizer, counters):
    pool.add(Job(submit("held", 1, 2), reader))
    wait_for_word(counters, PreprocessCounter.TOKENIZING, 1)
    assert pool.cancel(1)
    assert pool.cancel(2)
    assert (pool.requests, pool.characters) == (0, 0)
    pool.add(Job(submit("next", 3), reader))
    tokenizer.gates["held"].set()
    assert [one.request for one in take(pool).results()] == [3]


def test_nothing_of_one_generation_comes_in_the_next(pool, reader, tokenizer, counters):
    pool.add(Job(submit("done", 1), reader))
    pool.add(Job(submit("held", 2), reader))
    pool.add(Job(submit("waiting", 3), reader))
    wait_for_word(counters, PreprocessCounter.TOKENIZING, 2)
    pool.clear()
    assert (pool.requests, pool.characters, pool.take()) == (0, 0, None)
    pool.add(Job(submit("waiting", 3, resumed=True), reader))
    tokenizer.gates["held"].set()
    assert [one.request for one in take(pool).results()] == [3]
    assert pool.take() is None


def test_a_prompt_over_which_the_tokenizer_fails_is_refused_and_nobody_else_suffers(pool, reader, tokenizer, caplog):
    pool.add(Job(submit("broken", 9, 10), reader))
    pool.add(Job(submit("next", 11), reader))
    refused = Refused(9, 0, 500, "the tokenizer failed on this prompt", "prompt")
    assert take(pool).results() == [refused, replace(refused, request=10)]
    assert [one.request for one in take(pool).results()] == [11]
    assert "0000000000000009: the tokenizer failed on its prompt" in caplog.text


def test_too_many_tokens_are_counted_and_not_listed(tokenizer, blocks):
    reader = PromptReader(tokenizer, PreprocessLimits(64, 32, 4, frozenset()), blocks)
    refusals = reader.read(submit("x" * 33, 1, 2))
    text = too_long(64, "your prompt has 33 tokens, of which at most 32 are allowed")
    assert refusals == [Refused(request, 0, 400, text, "prompt", "context_length_exceeded") for request in (1, 2)]
    assert isinstance(reader.read(submit("x" * 32, 1))[0], Sequence)
    assert isinstance(reader.read(submit([7] * 32, 1))[0], Sequence)
    assert reader.read(submit([7] * 33, 1)) == refusals[:1]


def test_a_name_becomes_a_slot_and_blocks_of_its_own(tokenizer, blocks):
    limits = PreprocessLimits(1 << 20, 1 << 19, 100, frozenset({256}), adapters=adapters_of({"a": b"A", "b": b"B"}))
    reader, text = PromptReader(tokenizer, limits, blocks), "a prompt of more than sixteen bytes"
    read = {name: reader.read(submit(text, 1, 2, adapter=name)) for name in ("", "a", "b")}
    assert {name: {one.adapter for one in both} for name, both in read.items()} == {
        "": {BASE},
        "a": {Adapter(1, b"A")},
        "b": {Adapter(2, b"B")},
    }
    assert len({one.digests[0] for both in read.values() for one in both}) == 3
    answers = reader.read(submit(text, 1, 2, adapter="c"))
    assert [(one.request, one.status, one.parameter) for one in answers] == [(1, 404, "model"), (2, 404, "model")]
    assert "the adapter c is not loaded here" in answers[0].message


def test_one_that_is_deterministic_has_blocks_of_its_own_or_is_refused(tokenizer, blocks):
    text = "a prompt of more than sixteen bytes"
    reader = PromptReader(tokenizer, LIMITS, blocks)
    plain, one, other = (reader.read(submit(text, 1, deterministic=it))[0] for it in (False, True, True))
    assert (plain.deterministic, one.deterministic) == (False, True)
    assert len(one.digests) == 2
    assert one.digests == other.digests
    assert set(one.digests).isdisjoint(plain.digests)
    reader = PromptReader(tokenizer, replace_limits(LIMITS, not_deterministic=lambda: "it can't"), blocks)
    assert isinstance(reader.read(submit(text, 1))[0], Sequence)
    assert reader.read(submit(text, 1, deterministic=True)) == [Refused(1, 0, 400, "it can't", "deterministic")]
