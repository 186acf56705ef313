"""Frames, as they come over a wire: cut anywhere, too long, missing, doubled, or no frames at all."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.link.frames import (
    CONTROL_BYTES,
    MOST_BYTES,
    Frame,
    FrameReader,
    FrameWriter,
    Kind,
    LinkError,
    batches,
    legible,
    records_of,
)

LONGEST = 1 << 12


def head(length=0, kind=Kind.HELLO, number=0, reserved=0):
    return struct.pack("<IBBHII", length, kind, 0, reserved, number, 0)


def read(*pieces):
    reader = FrameReader(LONGEST)
    return [frame for piece in pieces for frame in reader.feed(piece)]


@given(st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=40)), max_size=6), st.data())
def test_they_come_whole_however_they_are_cut(sent, data):
    writer = FrameWriter()
    sent = [(Kind.HELLO, b"first"), *sent]
    stream = b"".join(writer.frame(kind, payload, 3, 7) for kind, payload in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read(*pieces) == [Frame(kind, 3, 7, payload) for kind, payload in sent]


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (b"GET / HTTP/1.1\r\nHost: node\r\n\r\n", "no frame of a link"),
        (head(reserved=1), "no frame of a link"),
        (head(kind=99), "no frame of a link"),
        (head(length=CONTROL_BYTES + 1), f"{CONTROL_BYTES} are the most"),
        (head() + head(length=MOST_BYTES + 1, kind=Kind.REQUESTS, number=1), f"{MOST_BYTES} are the most"),
        (head(kind=Kind.REQUESTS), "the first frame is no hello"),
        (head() + head(kind=Kind.BEAT, number=2), "frame 2 came where frame 1 was due"),
        (head() + head(kind=Kind.BEAT), "frame 0 came where frame 1 was due"),
    ],
)
def test_what_is_wrong_is_refused_by_name_and_before_it_is_kept(stream, why):
    with pytest.raises(LinkError, match=why):
        read(stream)


def test_a_record_may_be_as_long_as_was_agreed():
    reader, writer, longest = FrameReader(2 * MOST_BYTES), FrameWriter(), bytes(2 * MOST_BYTES)
    (payload,) = batches([longest])
    stream = writer.frame(Kind.HELLO) + writer.frame(Kind.REQUESTS, payload)
    assert records_of([*reader.feed(stream)][1].payload) == [longest]


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=20))
def test_records_are_found_again(records):
    assert [record for payload in batches(records) for record in records_of(payload)] == records


def test_batches_are_bounded():
    payloads = [*batches([bytes(MOST_BYTES // 3)] * 7)]
    assert [len(records_of(payload)) for payload in payloads] == [1, 2, 2, 2]
    assert max(map(len, payloads)) <= MOST_BYTES


@given(st.binary(max_size=64))
def test_payloads_of_any_bytes_are_records_or_refused(payload):
    try:
        records = records_of(payload)
    except LinkError:
        return
    assert records
    assert batches(records) == [payload]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\1",
        b"\0\0\0\0",
        b"\1\0\0\0\5\0\0\0abc",
        b"\1\0\0\0\1\0\0\0ab",
        b"\2\0\0\0\1\0\0\0\0\0\0\0a",
        b"\2\0\0\0\1\0\0\0\xff\xff\xff\xffa",
        b"\xff\xff\xff\xff\1\0\0\0a",
    ],
)
def test_lengths_are_not_believed(payload):
    with pytest.raises(LinkError, match="do not fill it"):
        records_of(payload)


def test_what_others_say_is_one_short_line():
    assert legible("a\nb\x1b[2Jc é") == "a?b?[2Jc é"
    assert legible("x" * 600) == "x" * 500 + "…"
