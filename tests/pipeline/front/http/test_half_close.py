"""Clients that have closed their sending side: those that wait get answers, those that are gone cost nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import time

import pytest

from tests.pipeline.front.conftest import post, read_all, read_until

STREAM = "/models/llama2/generate_stream"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize("path", ["/models/llama2/generate", STREAM])
@pytest.mark.parametrize("pace", ["", " @pace=0.4"], ids=["at once", "slowly"])
def test_whoever_waits_reads_the_answer(shared, path, pace):
    with shared.connect() as connection:
        connection.sendall(post({"inputs": f"one two three{pace}", "parameters": {"max_new_tokens": 4}}, path))
        connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection)
    assert answer.replace(INTERIM, b"").startswith(b"HTTP/1.1 200 OK\r\n")
    texts = [b"one", b" two", b" three"] if path == STREAM else [b"one two three one"]
    assert all(b'"%b"' % text in answer for text in texts)


def test_pipelined_requests_are_answered_all(shared):
    with shared.connect() as connection:
        connection.sendall(b"".join(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n" for _ in range(5)))
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection).replace(INTERIM, b"").count(b"HTTP/1.1 200 OK\r\n") == 5


def test_a_client_of_http_1_0_gets_no_interim_response(shared):
    request = post({"inputs": "a b @pace=0.5", "parameters": {"max_new_tokens": 3}}).replace(b"HTTP/1.1", b"HTTP/1.0")
    with shared.connect() as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"a b a" in answer


@pytest.mark.parametrize("cut", [10, -5], ids=["in the headers", "in the body"])
def test_half_a_request_is_none(shared, cut):
    with shared.connect() as connection:
        connection.sendall(post({"inputs": "x"})[:cut])
        connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"incomplete" in answer


@pytest.mark.parametrize("cut", [10, -5], ids=["in the headers", "in the body"])
def test_half_a_request_behind_whole_ones_is_told_behind_their_answers(shared, cut):
    whole = post({"inputs": "a b @pace=0.2", "parameters": {"max_new_tokens": 3}})
    with shared.connect() as connection:
        connection.sendall(whole * 2 + whole[:cut])
        connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection).replace(INTERIM, b"")
    assert [line for line in answer.splitlines() if line.startswith(b"HTTP/1.1 ")] == [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 400 Bad Request",
    ]


def test_nothing_at_all_is_closed_without_a_word(shared):
    with shared.connect() as connection:
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b""


@pytest.mark.parametrize("path", ["/models/llama2/generate", STREAM])
@pytest.mark.parametrize("when", ["at once", "later"])
def test_whoever_is_gone_is_cancelled_though_nothing_is_written_yet(shared, path, when):
    """Closed altogether: at once, or after a while of waiting with its sending side closed."""
    with shared.connect() as connection:
        connection.sendall(post({"inputs": "x @hang"}, path))
        request = shared.submitted("x")["submit"]
        if when == "later":
            connection.shutdown(socket.SHUT_WR)
            assert read_until(connection, INTERIM) == INTERIM
    assert shared.peer.expect("cancel") == request


@pytest.mark.parametrize("size", [70_000, 3_000_000])
def test_whoever_is_gone_after_a_large_body_is_cancelled(shared, size):
    """Reading pauses while a body is more than its handler has taken; it has to go on behind it."""
    body = b'{"inputs": "x @hang"}'.ljust(size)
    head = b"POST /models/llama2/generate HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    with shared.connect() as connection:
        connection.sendall(head + body)
        request = shared.submitted("x")["submit"]
    assert shared.peer.expect("cancel") == request


def test_a_stream_ends_with_its_client(shared):
    with shared.connect() as connection:
        connection.sendall(post({"inputs": "x y @pace=0.05", "parameters": {"max_new_tokens": 60}}, STREAM))
        request = shared.submitted("x")["submit"]
        connection.shutdown(socket.SHUT_WR)
        read_until(connection, b"y")
    assert shared.peer.expect("cancel") == request


def test_descriptors_do_not_pile_up(shared):
    def count():
        return len(os.listdir(f"/proc/{shared.front.pid}/fd"))

    before, waiting = count(), []
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            connection = stack.enter_context(shared.connect())
            connection.sendall(post({"inputs": "x @hang"}))
            waiting.append(shared.submitted("x")["submit"])
            connection.shutdown(socket.SHUT_WR)
            read_until(connection, INTERIM)
    assert sorted(shared.peer.expect("cancel") for _ in waiting) == sorted(waiting)
    deadline = time.monotonic() + 20
    while count() > before + 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
