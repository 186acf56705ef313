"""Texts that custom tools take, as they are."""

import json
import random

import pytest

from model.response import RAW, Calls, Kind, Mark, ResponseFormat, ResponseReader, Syntax

FORMAT = ResponseFormat("f", calls=(Calls((Mark("<c>"),), (Mark("</c>"),), Syntax.JSON),))
TEXTS = ["", "a", 'say "x"\n{\n}\n\\', "\n}", "é\n}\n{", "{}"]


def read(text, cut):
    reader, at, pieces = ResponseReader(FORMAT, tools={"patch": RAW, "f": None}), 0, []
    while at < len(text):
        size = cut()
        pieces += reader.push(text[at : at + size], 7)
        at += size
    return pieces + reader.finish()


@pytest.mark.parametrize("raw", TEXTS)
def test_any_cut_gives_the_text_as_an_argument(raw):
    rng = random.Random(1)
    text = f'<c>\n{{"name": "patch", "input":\n{raw}\n}}\n</c>\n<c>{{"name": "f", "arguments": {{}}}}</c>'
    for longest in (1, 2, 5, 200):
        for _ in range(20):
            pieces = read(text, lambda longest=longest: rng.randint(1, longest))
            arguments = "".join(part for kind, part in pieces if kind is Kind.CALL_ARGUMENTS)
            assert json.loads(arguments.removesuffix("{}")) == {"input": raw}
            assert [part for kind, part in pieces if kind is Kind.CALL_BEGIN] == ["patch", "f"]
            assert sum(kind is Kind.CALL_END for kind, _ in pieces) == 2


def test_one_that_is_cut_has_no_end():
    pieces = read('<c>{"name": "patch", "input":\nhalf', lambda: 3)
    assert "".join(part for kind, part in pieces if kind is Kind.CALL_ARGUMENTS) == '{"input": "half'
    assert all(kind is not Kind.CALL_END for kind, _ in pieces)


def test_its_text_may_also_be_json():
    pieces = read('<c>{"name": "patch", "arguments": {"input": "x"}}</c>', lambda: 3)
    assert "".join(part for kind, part in pieces if kind is Kind.CALL_ARGUMENTS) == '{"input": "x"}'
