"""The client against real sockets that answer in all the ways that servers have."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
import time

import pytest

from scripts.bench.serving.load import Planned, run_load
from scripts.lab.errors import BenchError
from scripts.lab.http import Client

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
SIZED = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\none\ntwo"
ENDLESS = b"HTTP/1.1 200 OK\r\n\r\none\ntwo\n"


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


@contextlib.contextmanager
def serving(handle):
    """`handle(connection, number)` for every connection, each in a thread of its own; number from 0."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads = []

    def accept():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threads.append(threading.Thread(target=work, args=(connection, len(threads))))
                threads[-1].start()

    def work(connection, number):
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            handle(connection, number)

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for thread in threads:
            thread.join()


def read_request(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            raise OSError("gone")
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head, body


def ask(url, count=1, *, limit=1, timeout_s=10.0, **options):
    client = Client(url, **options)
    request = Planned(client.request("POST", "/x", b"{}"), None)
    return run_load(client, [request] * count, [0.0] * count, max_concurrency=limit, timeout_s=timeout_s)


@pytest.mark.parametrize("answer", [SIZED, ENDLESS, CHUNKED + chunk(b"one\nt") + chunk(b"wo\n") + chunk(b"")])
def test_bodies_of_every_framing(answer):
    def handle(connection, number):
        read_request(connection)
        connection.sendall(answer)

    with serving(handle) as url:
        (outcome,) = ask(url).outcomes
    assert outcome.reply.status == 200
    assert outcome.reply.lines == [b"one", b"two"]


def test_lines_have_the_times_at_which_they_came():
    def handle(connection, number):
        read_request(connection)
        connection.sendall(CHUNKED)
        for line in (b"one\n", b"two\nthree\n"):
            time.sleep(0.05)
            connection.sendall(chunk(line))
        connection.sendall(chunk(b""))

    with serving(handle) as url:
        run = ask(url)
    first, second, third = run.outcomes[0].reply.times_ns
    assert first - run.outcomes[0].started_ns >= 50_000_000
    assert second - first >= 40_000_000
    assert third == second


def test_connections_are_used_again_or_not_as_the_api_wants():
    def handle(connection, number):
        numbers.append(number)
        while True:
            head, body = read_request(connection)
            assert body == b"{}"
            heads.append(head.lower())
            connection.sendall(SIZED)

    for keep_alive in (True, False):
        numbers, heads = [], []
        with serving(handle) as url:
            run = ask(url, 5, keep_alive=keep_alive)
        assert all(outcome.reply.status == 200 for outcome in run.outcomes)
        assert len(numbers) == (1 if keep_alive else 5)
        assert all((b"connection: close" in head) != keep_alive for head in heads)


def test_a_connection_that_was_closed_while_idle_is_replaced_unseen():
    """As llama.cpp does after each stream."""

    def handle(connection, number):
        read_request(connection)
        connection.sendall(SIZED)

    with serving(handle) as url:
        run = ask(url, 20)
    assert [outcome.error for outcome in run.outcomes] == [""] * 20


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"", "the server closed the connection"),
        (SIZED[:-3], "the server closed the connection"),
        (CHUNKED + chunk(b"one\n"), "the server closed the connection"),
        (b"SSH-2.0\r\n", "no HTTP"),
    ],
)
def test_answers_that_break_off_are_errors(sent, error):
    def handle(connection, number):
        read_request(connection)
        connection.sendall(sent)

    with serving(handle) as url:
        (outcome,) = ask(url).outcomes
    assert outcome.reply is None
    assert error in outcome.error


def test_a_server_that_says_nothing_is_given_up():
    released = threading.Event()

    def handle(connection, number):
        read_request(connection)
        released.wait(10)

    with serving(handle) as url:
        (outcome,) = ask(url, timeout_s=0.2).outcomes
        released.set()
    assert outcome.error == "no complete answer within 0.2 s"


def test_nobody_listening_is_an_error_of_each_request():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    run = ask(f"http://127.0.0.1:{port}", 3)
    assert len(run.outcomes) == 3
    assert all("refused" in outcome.error.lower() for outcome in run.outcomes)


def test_headers_and_paths_below_the_base_url():
    client = Client("http://localhost:81/v2/", headers=(("x-key", "7"),))
    assert client.request("GET", "/models") == b"GET /v2/models HTTP/1.1\r\nhost: localhost:81\r\nx-key: 7\r\n\r\n"


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://x", "http://", "http://x:port"])
def test_what_is_no_base_url(url):
    with pytest.raises(BenchError, match="URL"):
        Client(url)


def test_no_more_than_allowed_are_under_way():
    now, most, lock = [0], [0], threading.Lock()

    def handle(connection, number):
        read_request(connection)
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        connection.sendall(SIZED)

    with serving(handle) as url:
        run = ask(url, 24, limit=3, keep_alive=False)
    assert most[0] == 3
    queued = sorted(outcome.queue_s for outcome in run.outcomes)
    assert queued[0] < 0.02 < queued[-1]


def test_requests_start_when_they_are_due():
    def handle(connection, number):
        while True:
            read_request(connection)
            connection.sendall(SIZED)

    with serving(handle) as url:
        client = Client(url)
        due = [0.0, 0.05, 0.05, 0.2]
        run = run_load(client, [Planned(client.request("GET", "/"), None)] * 4, due)
    for outcome, at in zip(run.outcomes, due, strict=True):
        assert outcome.start_s >= at
        assert outcome.late_s == pytest.approx(outcome.start_s - at, abs=0.01)
    assert run.duration_s >= 0.2
    assert run.cpu_s > 0


@pytest.mark.parametrize("keep_alive", [True, False])
def test_a_client_that_has_enough_goes_away(keep_alive):
    """It has seen each line as it came; its connection is not used again."""
    gone = threading.Event()

    def endless(connection, _):
        read_request(connection)
        connection.sendall(CHUNKED)
        with contextlib.suppress(OSError):
            for number in itertools.count():
                connection.sendall(chunk(b"%d\n" % number))
                time.sleep(0.01)
        gone.set()

    async def ask(base):
        client, seen = Client(base, keep_alive=keep_alive), []

        def watch(reply):
            seen.append((reply.status, len(reply.lines)))
            return len(reply.lines) >= 3

        reply = await client.send(client.request("GET", "/"), watch)
        assert not client._free
        return reply, seen

    with serving(endless) as base:
        reply, seen = asyncio.run(ask(base))
        assert gone.wait(10)
    assert reply.lines[:3] == [b"0", b"1", b"2"]
    assert len(reply.times_ns) == len(reply.lines)
    assert seen == sorted(seen)
    assert {status for status, _ in seen} == {200}


def test_a_client_that_has_enough_is_given_no_half_line():
    def half(connection, _):
        read_request(connection)
        connection.sendall(CHUNKED + chunk(b"one\ntwo\nth"))
        connection.recv(1)

    async def ask(base):
        seen = []

        def watch(reply):
            seen.append([*reply.lines])
            return True

        client = Client(base, keep_alive=False)
        reply = await client.send(client.request("GET", "/"), watch)
        await asyncio.sleep(0.05)  # the connection has been lost meanwhile
        return reply, seen

    with serving(half) as base:
        reply, seen = asyncio.run(ask(base))
    assert reply.lines == [b"one", b"two"]
    assert seen == [[b"one", b"two"]]
