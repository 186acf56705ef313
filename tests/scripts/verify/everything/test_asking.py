"""Events of an answer that comes in several replies, and of one that says which it is."""

from __future__ import annotations

from scripts.lab.http import Reply
from scripts.verify.everything.asking import Asked

HEADERS = {b"x-stream-id": b"abc", b"x-ringserve-replica": b"1"}


def reply(*lines):
    return Reply(200, [0] * len(lines), [*lines], HEADERS)


def test_the_rest_is_asked_for_behind_what_came():
    asked, first = (
        Asked(),
        reply(b"id: 0", b"retry: 100", b'data: {"a": 1}', b"event: x", b"id: 1", b'data: {"a": 2}'),
    )
    asked.take(first, steady=True)
    assert (asked.name, asked.replica, asked.position) == ("abc", "1", "?starting_after=1")
    first.lines += [b": ping"]
    asked.take(first, steady=True)
    asked.come_back()
    asked.take(reply(b"id: 2", b'data: {"a": 3}', b"id: 3", b"data: [DONE]"), steady=True)
    assert [event["a"] for event in asked.events] == [1, 2, 3]
    assert (asked.error, asked.returns, asked.repeats, len(asked.times_s)) == ("", 1, 0, 3)


def test_an_event_that_is_missing_is_an_error():
    asked = Asked()
    asked.take(reply(b"id: 0", b'data: {"a": 1}', b"id: 2", b'data: {"a": 3}'), steady=False)
    assert "event 2 came, 1 is due" in asked.error


def test_lines_without_numbers_are_counted():
    asked = Asked()
    asked.take(reply(b'{"data": 1}', b'{"data": 2}'), steady=False)
    assert (asked.position, asked.replica) == ("?starting_after=1", "")


def test_what_has_no_name_is_asked_anew():
    asked = Asked()
    asked.come_back()
    assert (asked.returns, asked.repeats, asked.position) == (0, 1, "")
