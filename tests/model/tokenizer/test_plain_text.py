"""Texts that spell special tokens and are none."""

from __future__ import annotations

import pytest

from model.demo import DEMO_DIR
from model.tokenizer import load_tokenizer
from model.tokenizer.plain_text import SpecialTexts, Within, unmark
from tests.model.tokenizer.conftest import ALL_KINDS


def test_marks_come_off_and_tell_where_they_were():
    special = SpecialTexts(["<s>", "<s>x", "</s>", ""])
    found = {"": [], "plain < s>": [], "a<s>b</s>": ["<s>", "</s>"], "<s>x<s>": ["<s>x", "<s>"]}
    for text, places in found.items():
        bare, spans = unmark(f"head {special.mark(text)} tail")
        assert bare == f"head {text} tail"
        assert [bare[a:b] for a, b in zip(spans[::2], spans[1::2], strict=True)] == places


def test_a_client_s_own_marks_are_none():
    special = SpecialTexts(["</s>"])
    for text in ("a\ufdd0b", "\ufdd0</s>\ufdd1", "\ufdd1"):
        bare, spans = unmark(special.mark(text))
        assert [bare[a:b] for a, b in zip(spans[::2], spans[1::2], strict=True)] == ["</s>"] * text.count("</s>")
    tokenizer = load_tokenizer(DEMO_DIR)
    said = [("user", "a\ufdd0b"), ("assistant", "x\ufdd0"), ("user", "c\ufdd1d")]
    _, spans = tokenizer.render_chat([{"role": role, "content": content} for role, content in said])
    assert spans == ()


def test_places_are_met_in_part_too_and_found_among_very_many():
    within = Within(tuple(range(0, 400_000, 2)))  # 0 to 2, 4 to 6, ...
    assert all(within(4 * i, 4 * i + 2) and not within(4 * i + 2, 4 * i + 4) for i in range(0, 99_999, 7))
    assert within(1, 5)
    assert within(2, 5)
    assert not within(5, 5)
    assert not Within(())(0, 9)


@pytest.mark.parametrize("broken", ["\ufdd0ab", "ab\ufdd1", "\ufdd1ab\ufdd0", "\ufdd0\ufdd0a\ufdd1"])
def test_marks_that_a_template_has_torn_apart_leave_nothing_behind(broken):
    bare, spans = unmark(broken)
    assert bare.isascii()
    assert all(Within(spans)(a, b) for a, b in zip(spans[::2], spans[1::2], strict=True))


def test_without_special_tokens_nothing_is_marked():
    assert SpecialTexts([]).mark("<s>") == "<s>"


@pytest.fixture(params=["demo", *ALL_KINDS])
def tokenizer(request, tokenizer_files):
    return load_tokenizer(DEMO_DIR if request.param == "demo" else tokenizer_files[request.param])


def test_what_is_plain_is_encoded_as_text(tokenizer):
    marker = max(tokenizer.special_ids)
    special = tokenizer.token_text(marker)
    text = f"Say {special} and{special}stop{special}"
    spans = (4, 4 + len(special), 8 + len(special), 8 + 2 * len(special))
    assert [text[a:b] for a, b in zip(spans[::2], spans[1::2], strict=True)] == [special] * 2
    ids = tokenizer.encode(text, add_special=False, plain=spans)
    assert ids.count(marker) == 1
    assert ids[-1] == marker
    decoded = tokenizer.decode(ids, skip_special=False)
    assert "<unk>" in decoded or decoded.replace(" ", "") == text.replace(" ", "")
    count, array = tokenizer.encode_up_to(text, 100, add_special=False, plain=spans)
    assert (count, array.tolist()) == (len(ids), ids)
    assert tokenizer.encode_up_to(text, 2, add_special=False, plain=spans)[1].size == 0
    with_bos = tokenizer.encode(text, plain=spans)
    assert len(with_bos) - len(ids) == len(tokenizer.encode("a")) - len(tokenizer.encode("a", add_special=False))


def test_without_such_places_nothing_changes(tokenizer):
    text = "Say </s> and <s> stop"
    assert tokenizer.encode(text, plain=(0, 0)) == tokenizer.encode(text)
