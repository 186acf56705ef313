"""Many requests on one connection, and clients that go away."""

from __future__ import annotations

import contextlib
import os
import socket
import time

import pytest

from scripts.lab.processes import resident_bytes
from tests.pipeline.front.conftest import post, read_all, read_until
from tests.pipeline.front.http.clients import GENERATE, STREAM, body_of, gone, status_and_error

# ---- many requests on a connection -------------------------------------------------------------------------


def test_keep_alive(shared):
    with shared.connect() as connection:
        for prompt in ("a b", "c d", "e f"):
            connection.sendall(post(body_of(prompt, max_new_tokens=2)))
            answer = read_until(connection, b"}\n")
            assert f'"generated_text": "{prompt}"'.encode() in answer
            assert b"connection: close" not in answer


@pytest.mark.parametrize("path", [GENERATE, STREAM])
def test_connection_close(shared, path):
    with shared.connect() as connection:
        connection.sendall(post(body_of("a b", max_new_tokens=2), path, headers="Connection: close\r\n"))
        answer = read_all(connection)
    assert b"connection: close" in answer
    assert answer.count(b"HTTP/1.1 200") == 1


def test_http_1_0(shared):
    with shared.connect() as connection:
        connection.sendall(post(body_of("a b", max_new_tokens=2)).replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert b'"generated_text": "a b"' in read_all(connection)


def test_expect_100_continue(shared):
    with shared.connect() as connection:
        head, _, body = post(body_of("a b", max_new_tokens=2), headers="Expect: 100-continue\r\n").partition(
            b"\r\n\r\n"
        )
        connection.sendall(head + b"\r\n\r\n")
        assert read_until(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert b'"a b"' in read_until(connection, b"}\n")


def test_pipelined_requests_are_answered_in_order(shared):
    prompts = [f"number {i}" for i in range(30)]
    with shared.connect() as connection:
        paths = [GENERATE, STREAM]
        requests = [post(body_of(prompt, max_new_tokens=2), paths[i % 2]) for i, prompt in enumerate(prompts)]
        connection.sendall(b"".join(requests) + b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
        answer = read_all(connection)
    assert answer.count(b"HTTP/1.1 200") == 31
    places = [answer.index(f'" {i}"'.encode()) for i in range(30)]
    assert places == sorted(places)


def test_thousands_of_requests_without_waiting_for_answers(shared):
    """One read may bring 14,000 of them, of which each would take kilobytes."""
    tiny = b"GET /health HTTP/1.1\r\n\r\n"
    before = resident_bytes(shared.front.pid)
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(shared.connect())
            with contextlib.suppress(ConnectionError):
                connection.sendall(post(body_of("@hang"), STREAM) + tiny * 11_000)
                read_all(connection)  # until it is closed
    assert resident_bytes(shared.front.pid) - before < 64 << 20
    gone(shared)
    with shared.connect() as connection:
        connection.sendall(tiny * 200)
        answer = b""
        while answer.count(b'"alive"') < 200:
            answer += connection.recv(1 << 16)


def test_nonsense_behind_requests_is_answered_in_its_turn(shared):
    good = [post(body_of(f"a {i} @pace=0.02", max_new_tokens=5), STREAM) for i in range(3)]
    with shared.connect() as connection:
        connection.sendall(b"".join(good) + b"\x00\x01nonsense\r\n\r\n" + good[0])
        *answers, last = read_all(connection).split(b"HTTP/1.1 ")[1:]
    assert len(answers) == 3
    assert all(answer.startswith(b"200") and answer.endswith(b"0\r\n\r\n") for answer in answers)
    assert status_and_error(b"HTTP/1.1 " + last)[0] == 400


def test_nonsense_in_a_body_behind_a_request(shared):
    first = post(body_of("first @pace=0.02", max_new_tokens=5))
    with shared.connect() as connection:
        connection.sendall(first + f"POST {STREAM} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n".encode())
        answer, last = read_all(connection).split(b"HTTP/1.1 ")[1:]
    assert answer.startswith(b"200")
    assert status_and_error(b"HTTP/1.1 " + last)[0] == 400


@pytest.mark.parametrize("announced", [b"Content-Length: 3000000\r\n", b"Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("path", [b"/nowhere", b"/v1/completions"])
def test_an_answer_that_comes_before_the_body_is_not_lost(serve, path, announced):
    served = serve(body_limit_bytes=1000)
    chunk = b"x" * 2999 if announced.startswith(b"Content") else b"bb7\r\n" + b"x" * 2999 + b"\r\n"
    with served.connect() as connection:
        connection.sendall(b"POST " + path + b" HTTP/1.1\r\nConnection: close\r\n" + announced + b"\r\n")
        for _ in range(300):
            connection.sendall(chunk)
            time.sleep(0.0005)
        assert status_and_error(read_all(connection))[0] in (404, 413)


def test_a_body_that_stops_after_the_answer(serve):
    served = serve(body_limit_bytes=1000, body_timeout_s=0.3)
    with served.connect() as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Length: 5000\r\n\r\n" + b"x" * 100)
        answer = read_all(connection)
    assert status_and_error(answer)[0] == 413
    assert answer.count(b"HTTP/1.1") == 1


# ---- clients that go away ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [GENERATE, STREAM])
@pytest.mark.parametrize("reset", [True, False])
def test_a_client_that_goes_away_is_cancelled_at_once(shared, path, reset):
    with shared.connect() as connection:
        connection.sendall(post(body_of("away @pace=0.02", max_new_tokens=1000), path))
        seen = shared.peer.expect("submit")
        while seen["prompt"] != "away @pace=0.02":
            seen = shared.peer.expect("submit")
        if path == STREAM:
            read_until(connection, b"generated_text")
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert shared.peer.expect("cancel") == seen["submit"]
    gone(shared)


def test_a_client_that_goes_away_before_its_first_token(shared):
    with shared.connect() as connection:
        connection.sendall(post(body_of("@hang"), STREAM))
        seen = shared.peer.expect("submit")
        while seen["prompt"] != "@hang":
            seen = shared.peer.expect("submit")
    assert shared.peer.expect("cancel") == seen["submit"]


def test_all_pipelined_requests_learn_that_the_client_went_away(shared):
    with shared.connect() as connection:
        first = post(body_of("first @hang"), STREAM)
        connection.sendall(first + post(body_of("second @hang"), STREAM))
        seen = shared.peer.expect("submit")
        while seen["prompt"] != "first @hang":
            seen = shared.peer.expect("submit")
    assert shared.peer.expect("cancel") == seen["submit"]
    gone(shared)


def test_descriptors_do_not_leak(shared):
    before = len(os.listdir(f"/proc/{shared.front.pid}/fd"))
    for i in range(40):
        with shared.connect() as connection:
            connection.sendall(post(body_of("@hang" if i % 2 else "a"), STREAM)[: None if i % 3 else 40])
    gone(shared)
    assert shared.generate("a", max_new_tokens=1).status_code == 200
    deadline = time.monotonic() + 10
    while len(os.listdir(f"/proc/{shared.front.pid}/fd")) > before + 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
