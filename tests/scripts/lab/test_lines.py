"""Streams that are cut anywhere."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.bench.serving.apis import APIS
from scripts.lab.lines import LineSplitter

TEXTS = ["a", "", "né", "日本", "\n", '"', "data: x", " 🙂 "]


def sse(text, reason=None):
    chunk = {"choices": [{"index": 0, "text": text, "finish_reason": reason}]}
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"


USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":8}}\n\n'
STREAM = b": ping\n\n" + b"".join(map(sse, TEXTS)) + sse("", "length") + USAGE + b"data: [DONE]\n\n"


def feed(parts):
    splitter = LineSplitter()
    lines = [line for part in parts for line in splitter.feed(part)]
    return lines + splitter.finish()


@given(st.lists(st.integers(0, len(STREAM)), max_size=40))
def test_any_cut_gives_the_same_events(cuts):
    edges = [0, *sorted(cuts), len(STREAM)]
    lines = feed([STREAM[a:b] for a, b in itertools.pairwise(edges)])
    assert lines == feed([STREAM])
    events = [APIS["openai"].read(line) for line in lines]
    assert "".join(event.text for event in events) == "".join(TEXTS)
    assert sum(event.is_token for event in events) == len(TEXTS)
    assert [event.output_tokens for event in events if event.output_tokens] == [8]


def test_one_byte_at_a_time():
    assert feed([STREAM[i : i + 1] for i in range(len(STREAM))]) == feed([STREAM])


def test_carriage_returns_empty_lines_and_a_last_line_without_its_end():
    assert feed([b"one\r\n\r", b"\n\ntwo\n", b"th", b"ree"]) == [b"one", b"two", b"three"]
    assert feed([b""]) == []
    assert LineSplitter().finish() == []


@pytest.mark.parametrize("junk", [b"data: [DONE]", b": comment", b"event: message", b"retry: 3"])
def test_lines_that_are_no_answer(junk):
    event = APIS["openai"].read(junk)
    assert not event.is_token
    assert not event.is_answer
