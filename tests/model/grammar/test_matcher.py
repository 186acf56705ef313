"""Masks and matchers over vocabularies."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from model.grammar import GrammarError, Grammars, Vocabulary, grammar_text
from model.sampling import SampleOutputs, Sampler, SamplingLimits, SamplingParams
from model.tokenizer import load_tokenizer
from tests.model.grammar.conftest import Kit
from tests.model.tokenizer.conftest import train_byte_fallback

DIGITS = ("regex", "[0-9]{1,3}")


@pytest.fixture(scope="module")
def padded(kit) -> Kit:
    """As the demo model's, but the model has ids that no token has."""
    return Kit(kit.tokenizer, kit.tokenizer.vocab_size + 33)


def test_a_mask_allows_what_goes_on_and_the_end_where_it_may_be(kit):
    matcher = kit.matcher(*DIGITS)
    ends = kit.tokenizer.eos_ids
    expected = {token for token in range(kit.vocabulary.size) if is_number(kit.tokenizer.token_bytes(token))}
    assert kit.mask(matcher) == expected - kit.tokenizer.special_ids
    assert matcher.take(*kit.ids("1"))
    assert ends < kit.mask(matcher)
    assert not matcher.stopped
    assert matcher.replay(kit.ids("2") + kit.ids("3"))
    assert kit.mask(matcher) == ends
    assert matcher.stopped
    assert not matcher.error
    assert matcher.take(min(ends))


def is_number(data: bytes) -> bool:
    return data.isdigit() and data.isascii() and len(data) <= 3


def test_special_tokens_and_ids_without_a_token_are_never_allowed(padded):
    matcher = padded.matcher("lark", "start: /(?s:.*)/ | <[0-2080]>+")
    allowed = padded.mask(matcher)
    assert max(allowed) < padded.tokenizer.vocab_size
    matcher = padded.matcher("regex", r"[\s\S]*")
    assert not padded.mask(matcher) & (padded.tokenizer.special_ids - padded.tokenizer.eos_ids)


def test_every_end_token_of_the_model_ends(kit):
    vocabulary = Vocabulary(kit.tokenizer, kit.tokenizer.vocab_size, {2, 5})
    matcher = Grammars(vocabulary).matcher(grammar_text("choice", ["", "ab"]))
    mask = np.zeros_like(vocabulary.known)
    matcher.fill(mask)
    assert mask[0] & (1 << 2)
    assert mask[0] & (1 << 5)
    assert matcher.take(5)
    assert matcher.stopped
    with pytest.raises(GrammarError, match="no end token"):
        Vocabulary(kit.tokenizer, kit.tokenizer.vocab_size, {99_999})


def test_replay_is_take_for_each_and_copies_go_their_own_ways(kit):
    value = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    ids = kit.ids('{"name": "An')
    one, other = kit.matcher("json_schema", value), kit.matcher("json_schema", value)
    assert all(map(one.take, ids))
    assert other.replay(ids)
    assert kit.mask(one) == kit.mask(other)
    third = one.copy()
    assert third.replay(kit.ids('"}'))
    assert third.may_end
    assert kit.mask(one) == kit.mask(other) != kit.mask(third)


def test_a_token_that_is_not_allowed_is_an_error_that_stays(kit):
    matcher = kit.matcher(*DIGITS)
    assert not matcher.take(kit.ids("x")[0])
    assert matcher.error
    assert matcher.stopped
    assert not matcher.may_end
    assert not matcher.take(kit.ids("1")[0])
    assert kit.mask(matcher) == set()
    assert not kit.matcher(*DIGITS).replay(kit.ids("1x"))


def test_masks_of_another_shape_are_refused(kit):
    matcher, words = kit.matcher(*DIGITS), kit.vocabulary.known.size
    for mask in (np.zeros(words + 1, np.uint32), np.zeros(words, np.int32), np.zeros((words, 2), np.uint32)[:, 0]):
        with pytest.raises(ValueError, match="a mask is uint32"):
            matcher.fill(mask)


def test_the_latest_grammars_are_kept(kit):
    grammars = Grammars(kit.vocabulary, most=2)
    texts = [grammar_text("choice", [word]) for word in "abc"]
    for text in (texts[0], texts[1], texts[0], texts[2]):
        grammars.compile(text)
    assert [text in grammars for text in texts] == [True, False, True]
    assert kit.mask(grammars.matcher(texts[1])) == set(kit.ids("b"))
    with pytest.raises(GrammarError, match="nosuch"):
        grammars.compile(grammar_text("lark", 'start: <nosuch> "a"'))


def test_threads_may_compile_at_once(kit):
    grammars = Grammars(kit.vocabulary)
    texts = [grammar_text("choice", [f"w{at % 4}"]) for at in range(16)]
    with ThreadPoolExecutor(4) as pool:
        masks = list(pool.map(lambda text: kit.mask(grammars.matcher(text)), texts))
    assert all(masks[at] == masks[at % 4] for at in range(16))


@pytest.mark.parametrize("word", ["\U0001f9ea", "the", "a the", "</s>x", "\n", "é"])
def test_the_only_text_that_may_follow_is_written_in_its_bytes(tmp_path, word):
    """With a tokenizer that puts a space in front, has bytes of characters as tokens, and special ones."""
    train_byte_fallback().save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    vocabulary = Vocabulary(tokenizer, tokenizer.vocab_size, {2})
    grammars, mask = Grammars(vocabulary), np.zeros_like(vocabulary.known)
    matcher, written = grammars.matcher(grammar_text("choice", [word])), b""
    while not matcher.stopped:
        matcher.fill(mask)
        allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
        assert 2 not in allowed
        assert matcher.take(int(allowed[-1])), matcher.error
        written += tokenizer.token_bytes(int(allowed[-1]))
    assert written.decode() == word
    assert matcher.may_end


def test_a_special_token_written_out_is_text(kit):
    matcher = kit.matcher("choice", ["</s>", "<s>!"])
    assert not kit.mask(matcher) & kit.tokenizer.special_ids


def test_an_answer_from_random_logits(kit):
    """The way of a row: mask, sampler, matcher, in turn."""
    vocab = kit.vocabulary.size
    sampler, out = Sampler(SamplingLimits(vocab, 200), 1, masks=True), SampleOutputs.allocate(1)
    text = grammar_text("choice", ["red", "green", "blue"])
    sampler.admit(0, SamplingParams(seed=4, grammar=text), [1])
    matcher, ids, rng = kit.grammars.matcher(text), [], np.random.default_rng(0)
    while True:
        matcher.fill(sampler.mask(0))
        logits = rng.normal(0, 5, (1, vocab)).astype(np.float32)
        sampler.sample(logits, np.zeros(1, np.int32), np.array([len(ids) + 1], np.int32), out)
        token = int(out.token_ids[0])
        assert matcher.take(token)
        if token in kit.tokenizer.eos_ids:
            break
        ids.append(token)
    assert kit.tokenizer.decode(ids) in ("red", "green", "blue")
