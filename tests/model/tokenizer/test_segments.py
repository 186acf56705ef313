"""Remembered segments of long texts: the ids are those of the whole text, whatever tokens there are."""

from __future__ import annotations

import threading
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, pre_tokenizers, processors

from model.demo import DEMO_DIR
from model.tokenizer import huggingface, load_tokenizer, segments
from model.tokenizer.huggingface import wrapping
from model.tokenizer.segments import SegmentCache, marks_of
from tests.examples import examples
from tests.model.tokenizer.conftest import LIBRARY_TOKENIZERS

SPECIAL = ["<s>", "</s>", "<|eot|>", "<|start|>", "<|im|>", "<tool>"]
PIECES = [
    *SPECIAL, "<s", "s>", "<|", "|>", "<|eot", "eot|>", "<tool", "<s><s>", " <s>", "<s> ", "\n<|eot|>\n", "<s>x",
    " ", "  ", "\n\n", "word", " word", "two words", "Größe", "中文", "😀", "\u0301", "0123", "_", "x<s>y", "▁", "<>",
]  # fmt: skip
ODD = [
    AddedToken("<|start|>", special=True, lstrip=True),
    AddedToken("<|im|>", special=True, rstrip=True),
    AddedToken("word", single_word=True),
    AddedToken("<s>x", special=True),
    AddedToken("x<s>y", special=True),
    AddedToken("Größe", normalized=True),
    AddedToken("|><|", special=True),
]


@cache
def made(kind: str) -> Tokenizer:
    name, _, variant = kind.partition(" ")
    tokenizer = LIBRARY_TOKENIZERS[name]()
    if "first" in variant:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    if "prefix" in variant:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.add_special_tokens([token for token in SPECIAL if token != "<tool>"])
    if "odd" in variant:
        tokenizer.add_tokens([token for token in ODD if not token.special])
        tokenizer.add_special_tokens([token for token in ODD if token.special])
    if "ends" in variant:
        ends = [("<s>", tokenizer.token_to_id("<s>")), ("</s>", tokenizer.token_to_id("</s>"))]
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return tokenizer


KINDS = [
    "byte_level", "byte_level odd", "byte_level prefix ends", "byte_fallback", "byte_fallback odd ends", "metaspace",
    "metaspace first", "metaspace first odd",
]  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """Ours, and the library."""
    library = made(request.param)
    path = tmp_path_factory.mktemp("segments") / "tokenizer.json"
    library.save(str(path))
    ours = load_tokenizer(path)
    with pytest.MonkeyPatch.context() as patch:
        for module in (segments, huggingface):
            patch.setattr(module, "LEAST", 6)
        ours.remember(1 << 16)
        assert ours._segments is not None
        yield ours, library


@examples(150)
@given(st.lists(st.sampled_from(PIECES), min_size=3, max_size=30).map("".join), st.booleans())
def test_ids_are_those_of_the_whole_text(pair, text, special):
    ours, library = pair
    expected = library.encode(text, add_special_tokens=special).ids
    for _ in range(2):  # the second time from memory
        count, ids = ours.encode_up_to(text, 1 << 20, add_special=special)
        assert (count, ids.tolist()) == (len(expected), expected)
    assert ours.encode_up_to(text, len(expected) - 1, add_special=special)[0] == len(expected)
    assert ours.encode(text, add_special=special) == expected


def contents(pattern):
    return sorted(pattern.pattern.replace("\\", "").split("|")) if pattern else None


@pytest.mark.parametrize(
    ("tokens", "marks"),
    [
        ([AddedToken("<a>", special=True), AddedToken("<b>", special=True)], ["<a>", "<b>"]),
        ([AddedToken("<a>", special=True, lstrip=True)], None),
        ([AddedToken("<a>", single_word=True)], None),
        ([AddedToken("<a>", normalized=True)], None),
        ([AddedToken("abc", special=True), AddedToken(" <a>", special=True)], None),
        ([AddedToken("<a>", special=True), AddedToken("x<a>y", special=True)], None),  # it may stand inside
        ([AddedToken("<a>", special=True), AddedToken("x<", special=True)], None),  # its beginning may be taken
        ([AddedToken("<a>", special=True), AddedToken("<a>x", special=True)], ["<a>", "<a>x"]),
        ([AddedToken("<<", special=True)], None),  # of three, which two it takes depends on where it begins
        ([], None),
    ],
)
def test_where_a_text_may_be_cut(tokens, marks):
    assert contents(marks_of(tokens)) == marks


@pytest.mark.parametrize(
    ("processor", "encoded", "around"),
    [
        (None, ([5], [5]), ([], [])),
        ({"type": "TemplateProcessing"}, ([5], [1, 5, 2]), ([1], [2])),
        ({"type": "Sequence", "processors": [{"type": "ByteLevel"}]}, ([5, 6], [1, 5, 6]), ([1], [])),
        ({"type": "Sequence", "processors": [{"type": "Unheard"}]}, ([5], [5]), None),
        ({"type": "TemplateProcessing"}, ([5], [5, 5]), None),  # which of them is the text's?
        ({"type": "TemplateProcessing"}, ([5], [6]), None),
    ],
)
def test_what_is_put_around_a_text(processor, encoded, around):
    assert wrapping(processor, encoded) == around


@pytest.fixture
def usual(monkeypatch):
    """Whatever the fixture above has set."""
    for module in (segments, huggingface):
        monkeypatch.setattr(module, "LEAST", 2048)


def test_a_shared_prompt_is_encoded_once(usual):
    encoded = []

    def encode(texts):
        encoded.extend(texts)
        return [np.array([ord(sign) for sign in text], np.int32) for text in texts]

    made = SegmentCache(marks_of([AddedToken("<|im|>", special=True)]), encode, 1 << 20)
    shared = "<|im|>" + "x" * 5000
    for name in ("first", "second"):
        text = f"<|im|>short{shared}<|im|>{name}<|im|>end"
        assert "".join(map(chr, made.ids(text))) == text
    assert encoded == ["<|im|>short", shared, "<|im|>first<|im|>end", "<|im|>short", "<|im|>second<|im|>end"]
    assert made.ids(shared).flags.writeable is False


def test_memory_is_bounded_and_the_oldest_goes_first(usual):
    asked = []

    def encode(texts):
        asked.extend(text[:6] for text in texts)
        return [np.zeros(len(text), np.int32) for text in texts]

    cache = SegmentCache(marks_of([AddedToken("<|im|>", special=True)]), encode, 60_000)
    one, two, three, four = (f"<|{n}" + "y" * 2500 for n in range(1, 5))
    for text in (one, two, three, one, four, four):  # each takes some 12,600 bytes
        cache.ids(text)
    assert cache.bytes <= 60_000
    cache.ids(f"<|5{'y' * 2500}")
    asked.clear()
    for text in (one, four, two):
        cache.ids(text)
    assert asked == [two[:6]]
    before = cache.bytes
    cache.ids("z" * 100_000)  # it would leave nothing of the others
    assert cache.bytes == before


def test_threads_may_share_it(usual):
    tokenizer = load_tokenizer(DEMO_DIR)
    plain = load_tokenizer(DEMO_DIR)
    tokenizer.remember(1 << 17)
    special = sorted(tokenizer.added_ids)[0]
    texts = [special.join(f"{n} {k} the ring " * 300 for k in range(4)) for n in range(8)]
    expected = [plain.encode(text) for text in texts]
    wrong = []

    def work(begin):
        for n in range(40):
            text = (begin + n) % len(texts)
            if tokenizer.encode_up_to(texts[text], 1 << 20)[1].tolist() != expected[text]:
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(begin,)) for begin in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert 0 < tokenizer._segments.bytes <= 1 << 17
