"""Joined increments against the libraries' own decoding of the whole, for all kinds of tokenizers.

Not covered: the library's ByteFallback decoder spoils a whole run of byte tokens when one byte of it is
invalid. A stream cannot take back what it has sent, so here valid characters of such a run stay; see
`test_byte_fallback_keeps_the_valid_part_of_a_broken_run`.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from model.tokenizer import IncrementalDetokenizer
from tests.examples import examples

ROUNDS = 400


def stream(tokenizer, ids, **options):
    detokenizer = IncrementalDetokenizer(tokenizer, **options)
    return [*map(detokenizer.push, ids), detokenizer.finish()]


def random_ids(tokenizer, rng):
    """Likely to hit bytes of broken characters, spaces at the start, and special tokens."""
    small = [rng.randrange(tokenizer.vocab_size) for _ in range(4)]
    pool = [*small, *range(min(280, tokenizer.vocab_size)), *tokenizer.encode("a  b 中")]
    return [rng.choice(pool) for _ in range(rng.randrange(1, 16))]


def has_broken_byte_run(library, ids):
    """Whether the documented exception applies: a run of byte tokens that is not UTF-8."""
    run = bytearray()
    for token in [*map(library.id_to_token, ids), "end"]:
        if token.startswith("<0x"):
            run.append(int(token[3:5], 16))
            continue
        try:
            run.decode()
        except UnicodeDecodeError:
            return True
        run.clear()
    return False


def test_texts_come_back_whole(tokenizer, library, text):
    ids = tokenizer.encode(text, add_special=False)
    assert "".join(stream(tokenizer, ids)) == library.decode(ids)


def test_texts_with_byte_tokens_come_back_exactly(tokenizer_kinds_with_bytes, text):
    tokenizer = tokenizer_kinds_with_bytes
    assert "".join(stream(tokenizer, tokenizer.encode(text))) == text


def test_no_increment_has_half_a_character(tokenizer_kinds_with_bytes, text):
    tokenizer = tokenizer_kinds_with_bytes
    assert not any("\ufffd" in piece for piece in stream(tokenizer, tokenizer.encode(text)))


def test_random_ids_equal_the_library(kind, tokenizer, library):
    rng = random.Random(kind)
    compared = 0
    for _ in range(ROUNDS):
        ids = random_ids(tokenizer, rng)
        if kind == "byte_fallback" and has_broken_byte_run(library, [i for i in ids if i > 2]):
            continue
        compared += 1
        assert "".join(stream(tokenizer, ids)) == library.decode(ids), ids
    assert compared > ROUNDS / 20


def test_random_ids_equal_our_whole_decoding(kind, tokenizer):
    rng = random.Random(kind)
    for _ in range(ROUNDS):
        ids = random_ids(tokenizer, rng)
        for skip in (True, False):
            joined = "".join(stream(tokenizer, ids, skip_special=skip))
            assert joined == tokenizer.decode(ids, skip_special=skip)


@pytest.mark.parametrize("kind", ["byte_level", "metaspace"], indirect=True)
def test_shown_special_tokens_equal_the_library(kind, tokenizer, library):
    rng = random.Random(kind)
    for _ in range(ROUNDS):
        ids = random_ids(tokenizer, rng)
        expected = library.decode(ids, skip_special_tokens=False)
        assert "".join(stream(tokenizer, ids, skip_special=False)) == expected, ids


@pytest.mark.parametrize("kind", ["byte_fallback"], indirect=True)
def test_byte_fallback_keeps_the_valid_part_of_a_broken_run(tokenizer, library):
    run = [library.token_to_id(f"<0x{byte:02X}>") for byte in (*"é中".encode(), 0xFF, 0xE4)]
    assert stream(tokenizer, run) == ["", "é", "", "", "中", "\ufffd", "", "\ufffd"]


def test_ids_that_do_not_exist_add_nothing(tokenizer):
    ids = tokenizer.encode("before after", add_special=False)
    hostile = [-1, tokenizer.vocab_size, 2**31 - 1, -(2**40)]
    mixed = [*hostile, ids[0], *hostile, *ids[1:], *hostile]
    assert "".join(stream(tokenizer, mixed)) == tokenizer.decode(ids)


def test_an_unfinished_character_is_held_and_ends_as_replacement(tokenizer_kinds_with_bytes):
    tokenizer = tokenizer_kinds_with_bytes
    ids = tokenizer.encode("x🙈", add_special=False)
    held = stream(tokenizer, ids[:-1])
    assert "".join(held[:-1]).strip() == "x"
    assert set(held[-1]) == {"\ufffd"}


def test_resuming_at_any_token_continues_the_text(kind, tokenizer, text):
    """What a restarted stage does: prompt and sent tokens as context, then the rest."""
    ids = [*tokenizer.encode("prompt", add_special=True), *tokenizer.encode(text, add_special=False)]
    whole = stream(tokenizer, ids)
    for cut in range(len(ids) + 1):
        assert stream(tokenizer, ids[cut:], context=ids[:cut]) == whole[cut:], cut


def test_resuming_random_ids_continues_the_text(kind, tokenizer):
    rng = random.Random(kind)
    for _ in range(ROUNDS // 4):
        ids = [*random_ids(tokenizer, rng), *random_ids(tokenizer, rng)]
        whole = stream(tokenizer, ids)
        cut = rng.randrange(len(ids) + 1)
        assert stream(tokenizer, ids[cut:], context=ids[:cut]) == whole[cut:], (ids, cut)


def test_leading_spaces_of_the_context_settle_the_state(kind, tokenizer):
    """A long run of spaces says nothing yet about whether the next one is dropped."""
    space = tokenizer.encode("a  b", add_special=False)
    for ids in ([token] * 12 + space for token in space):
        whole = stream(tokenizer, ids)
        for cut in range(len(ids) + 1):
            assert stream(tokenizer, ids[cut:], context=ids[:cut]) == whole[cut:], (ids, cut)


def test_a_generated_first_word_keeps_its_space(kind, tokenizer):
    """Decoded alone its space would be lost; after the prompt it must not be."""
    prompt, both = (tokenizer.encode(text, add_special=False) for text in ("The quick", "The quick fox"))
    assert both[: len(prompt)] == prompt
    assert "".join(stream(tokenizer, both[len(prompt) :], context=prompt)) == " fox"


class CountingSource:
    """Counts how many tokens are looked at."""

    def __init__(self, tokenizer):
        self.rules = tokenizer.rules
        self.looked_at = 0
        self._tokenizer = tokenizer

    def piece(self, token_id, **options):
        self.looked_at += 1
        return self._tokenizer.piece(token_id, **options)


def test_work_per_token_does_not_grow(kind, tokenizer):
    source = CountingSource(tokenizer)
    ids = tokenizer.encode("The quick brown fox " * 50)
    detokenizer = IncrementalDetokenizer(source, ids)
    assert source.looked_at <= 16  # the end of the context, twice
    source.looked_at = 0
    for token_id in ids:
        detokenizer.push(token_id)
    assert source.looked_at == len(ids)


def test_work_on_a_context_that_adds_nothing_does_not_grow(kind, tokenizer):
    """Special tokens, ids that do not exist, and spaces, at the beginning, at the end or all over."""
    source = CountingSource(tokenizer)
    words = tokenizer.encode("some words")
    for idle in (*sorted(tokenizer.special_ids), -1, *tokenizer.encode("a  b", add_special=False)):
        for context in ([idle] * 5000, [idle] * 5000 + words, words + [idle] * 5000):
            source.looked_at = 0
            IncrementalDetokenizer(source, context)
            assert source.looked_at <= 40, (idle, context[:3])


@examples(300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), skip=st.booleans())
def test_the_state_behind_any_context_is_that_after_every_token_of_it(kind, tokenizer, data, skip):
    """Half characters, spaces, special tokens and ids that do not exist, in runs."""
    pool = [*range(min(280, tokenizer.vocab_size)), *tokenizer.encode("a  b 中😀"), *tokenizer.special_ids, -1]
    runs = data.draw(st.lists(st.tuples(st.sampled_from(pool), st.integers(1, 6)), max_size=20))
    ids = [token for token, count in runs for _ in range(count)]
    whole = IncrementalDetokenizer(tokenizer, skip_special=skip)
    for token in ids:
        whole.push(token)
    assert IncrementalDetokenizer(tokenizer, ids, skip_special=skip)._state() == whole._state()


@examples(300)
@given(text=st.text())
def test_any_text_survives_the_byte_level_stream(byte_level_tokenizer, text):
    tokenizer = byte_level_tokenizer
    ids = tokenizer.encode(text, add_special=False)
    if not tokenizer.special_ids & set(ids):
        assert "".join(stream(tokenizer, ids)) == text
