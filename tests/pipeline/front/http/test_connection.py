"""HTTP itself: limits, clients that are slow in either direction, pipelining, keep-alive, malformed requests."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from pathlib import Path

import pytest

from tests.pipeline.front.conftest import post, read_all, read_until
from tests.pipeline.front.http.clients import GENERATE, STREAM, body_of, gone, status_and_error

# ---- malformed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"inputs": "\xff"}', b'{"inputs": "\\ud800"}', b"[" * 5000, b'{"a": NaN}']
)
def test_malformed_json(shared, content):
    answer = shared.http.post(GENERATE, content=content)
    assert answer.status_code == 400
    assert "not valid JSON" in answer.json()["error"]["message"]


@pytest.mark.parametrize("content", [b"[]", b'"x"', b"5", b"null"])
def test_json_that_is_no_object(shared, content):
    assert shared.http.post(GENERATE, content=content).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("GET", GENERATE, "POST"), ("PUT", "/v1/completions", "POST"), ("POST", "/metrics", "GET, HEAD")],
)
def test_405(shared, method, path, allow):
    answer = shared.http.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    assert "not allowed" in answer.json()["error"]["message"]


def test_404_and_head(shared):
    assert shared.http.get("/etc/passwd").status_code == 404
    answer = shared.http.head("/health")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    "request_line",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ],
)
def test_what_is_not_http(shared, request_line):
    with shared.connect() as connection:
        connection.sendall(request_line)
        status, error = status_and_error(read_all(connection))
    assert (status, error["type"]) == (400, "invalid_request_error")


def test_a_compressed_body(shared):
    answer = shared.http.post(GENERATE, content=b"x", headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415


# ---- limits ------------------------------------------------------------------------------------------------


def test_a_body_too_large(serve):
    served = serve(body_limit_bytes=1000)
    assert served.generate("x" * 900, max_new_tokens=1).status_code == 200
    assert served.generate("x" * 1200).status_code == 413
    big = served.http.post(GENERATE, content=b"x" * 3000)  # the answer is read though nobody read the body
    assert (big.status_code, big.headers["connection"]) == (413, "close")

    def chunks():
        for _ in range(30):
            yield b"x" * 100

    assert served.http.post(GENERATE, content=chunks()).status_code == 413


def unfinished(served, size, held):
    """A connection that has sent so much of a body of `size` bytes."""
    connection = served.connect()
    connection.sendall(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (GENERATE.encode(), size))
    connection.sendall(b"x" * held)
    return connection


def test_bodies_that_are_too_much_together(serve):
    """Each of them is allowed, and small ones are served all the time."""
    served = serve(body_limit_bytes=1 << 20, body_memory_bytes=2 << 20)
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(unfinished(served, 1 << 20, 1 << 19)) for _ in range(6)]
        refused = []
        deadline = time.monotonic() + 20
        while not refused:  # which of them comes too late is for the kernel to say
            assert time.monotonic() < deadline
            refused = [one for one in waiting if select.select([one], [], [], 0.02)[0]]
            assert served.generate("a b", max_new_tokens=2).json()["generated_text"] == "a b"
        refused[0].sendall(b"x" * (1 << 19))
        answer = read_all(refused[0])
        assert status_and_error(answer)[0] == 503
        assert b"retry-after: 1" in answer
        assert b"connection: close" in answer
    body = b" " * ((1 << 20) - 64) + json.dumps(body_of("a", max_new_tokens=1)).encode()
    while served.http.post(GENERATE, content=body).status_code != 200:  # until what was held has been given back
        assert time.monotonic() < deadline


def test_headers_too_long(serve):
    served = serve(header_limit_bytes=2000)
    with served.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nX: " + b"x" * 3000)
        assert status_and_error(read_all(connection))[0] == 431


def test_too_many_connections(serve):
    served = serve(max_connections=3)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(served.connect())
        time.sleep(0.1)
        with served.connect() as one_more:
            answer = read_all(one_more)
    assert status_and_error(answer)[0] == 503
    assert b"retry-after: 1" in answer
    assert served.generate("a", max_new_tokens=1).status_code == 200


# ---- clients that send slowly ------------------------------------------------------------------------------


def test_headers_that_never_end(serve):
    served = serve(header_timeout_s=0.3)
    for before in (0, 2):  # requests on the connection
        with served.connect() as connection:
            for _ in range(before):
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                assert read_until(connection, b"alive").startswith(b"HTTP/1.1 200")
            connection.sendall(b"POST /health HTTP/1.1\r\nHost: x\r\n")
            assert status_and_error(read_all(connection))[0] == 408


def test_a_body_that_never_ends(serve):
    served = serve(body_timeout_s=0.3)
    with served.connect() as connection:
        connection.sendall(post(body_of("x"))[:-5])
        status, error = status_and_error(read_all(connection))
    assert (status, error["type"]) == (408, "timeout_error")
    assert served.generate("a", max_new_tokens=1).status_code == 200
    assert served.metric("ringserve_requests_total", outcome="cancelled") == 1


def test_a_request_byte_by_byte(shared):
    with shared.connect() as connection:
        for byte in post(body_of("a b", max_new_tokens=2), headers="Connection: close\r\n"):
            connection.sendall(bytes([byte]))
        assert b'"generated_text": "a b"' in read_all(connection)


def test_half_a_request_and_away(shared):
    for cut in (10, 60, -1):
        with shared.connect() as connection:
            connection.sendall(post(body_of("x"))[:cut])
    assert shared.generate("a", max_new_tokens=1).status_code == 200


def test_an_idle_connection_is_closed(serve):
    served = serve(keep_alive_s=0.3)
    with served.connect() as idle, served.connect() as used:
        used.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_until(used, b"alive").startswith(b"HTTP/1.1 200")
        assert used.recv(10) == b""
        assert idle.recv(10) == b""


# ---- clients that do not read ------------------------------------------------------------------------------


def narrow(served):
    """A connection whose client takes little."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", served.port))
    return connection


def test_a_client_that_never_reads_is_cut_off(serve):
    served = serve(write_timeout_s=0.5, stream_buffer_tokens=1 << 20)
    with narrow(served) as connection:
        connection.sendall(post(body_of("x" * 3000, max_new_tokens=4096), STREAM))
        request = served.peer.expect("submit")["submit"]
        assert served.generate("a b", max_new_tokens=2).json()["generated_text"] == "a b"  # others are served
        gone(served)
        assert request > 0
        assert served.metric("ringserve_requests_total", outcome="cancelled") == 1


def test_a_client_that_falls_behind_by_too_many_tokens(serve):
    served = serve(write_timeout_s=60, stream_buffer_tokens=100)
    with narrow(served) as connection:
        connection.sendall(post(body_of("x" * 6000 + " @pace=0.0001", max_new_tokens=4096), STREAM))
        request = served.peer.expect("submit")["submit"]
        assert served.peer.expect("cancel") == request
        gone(served)
    assert "did not read 100 tokens" in served.front.log("cancelled")


def test_a_client_that_reads_slowly_gets_everything(shared):
    with narrow(shared) as connection:
        connection.sendall(post(body_of("word " * 20, max_new_tokens=600), STREAM, headers="Connection: close\r\n"))
        data = b""
        while part := connection.recv(2048):
            data += part
            time.sleep(0.001)
    assert data.count(b'"event"') == 600
    assert data.endswith(b"0\r\n\r\n")


def with_the_kernel(connection):
    """Bytes that it has taken and the client has not read, on both sides of this connection; see proc_net_tcp."""
    ports = {f"{port:04X}" for port in (connection.getsockname()[1], connection.getpeername()[1])}
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    queues = [line[4] for line in lines if {end.split(":")[1] for end in line[1:3]} == ports]
    return sum(int(length, 16) for queue in queues for length in queue.split(":"))


def test_a_client_that_reads_the_end_late_gets_it(serve):
    """The whole answer is written and the connection is to close, but the end has not even left the server: too
    little for it to wait as long as for a client that does not read."""
    served = serve(write_timeout_s=5)
    tokens = 2000

    def ask(connection, letters):
        connection.sendall(post(body_of("x" * letters, max_new_tokens=tokens), headers="Connection: close\r\n"))
        served.peer.expect("submit")
        gone(served, 30)
        time.sleep(0.2)

    with narrow(served) as connection:
        ask(connection, 2000)
        full = with_the_kernel(connection)
        length = len(read_all(connection))
    letters = 2000 - (length - full - 30_000) // (2 * tokens)  # each is in the text and in the list of tokens
    with narrow(served) as connection:
        ask(connection, letters)
        assert with_the_kernel(connection) > full // 2
        time.sleep(3)
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert len(json.loads(body)["tokens"]) == tokens
