"""Where a request ends: whatever is sent, however it is cut into packets, it is one request or none, never two."""

from __future__ import annotations

import re
import socket
from collections import Counter
from dataclasses import dataclass, field

import pytest

from pipeline.front.http.errors import ApiError
from pipeline.front.http.request_parser import RequestParser
from pipeline.front.settings import FrontSettings
from scripts.verify.fuzz.framing import SMUGGLED, UPGRADES, Framing, cases

SETTINGS = FrontSettings(model_name="tiny", vocab_size=500, max_length=64, max_prompt=60, max_rows=2, max_queue=200)
CASES = list(cases())
FOLLOW = b"GET /version HTTP/1.1\r\nHost: x\r\nX-Request-Id: follow\r\n\r\n"


def telling():
    """Those that are sent in pieces: each way to say where the body ends, with and without an Upgrade."""
    seen = set()
    for case in cases():
        key = case.name.replace(", closed", "").replace(", unknown", "").split(", ")[0]
        if (key, b"Upgrade: h2c" in case.headers) not in seen and "continue" not in case.name:
            seen.add((key, b"Upgrade: h2c" in case.headers))
            yield case


TELLING = list(telling())
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
ID = re.compile(rb"x-request-id: (\w+)\r\n")


@dataclass
class Seen:
    """A sink that keeps what it is told."""

    requests: list[list] = field(default_factory=list)
    complete: int = 0

    def on_begin(self):
        pass

    def on_head(self, head):
        self.requests.append([head.headers.get(b"x-request-id"), b""])

    def on_body(self, data):
        self.requests[-1][1] += data

    def on_end(self):
        self.complete += 1

    def outcome(self):
        return [tuple(request) for request in self.requests[: self.complete]]


def parse(*packets):
    """What comes of them, and with which status it ends, if it does."""
    seen = Seen()
    parser = RequestParser(seen, SETTINGS)
    for packet in packets:
        try:
            parser.feed(packet)
        except ApiError as error:
            return seen.outcome(), error.status
    return seen.outcome(), None


def expected(case):
    if not case.right:
        return [], 400
    first = (b"first", SMUGGLED if case.body else b"")
    return [first] if case.closes else [first, (b"follow", b"")], None


def test_there_is_something_of_every_kind():
    kinds = Counter((case.name.split(":")[0], case.right) for case in CASES)
    assert len(CASES) > 1500
    for kind in ("length", "coding", "chunks"):
        assert min(kinds[kind, True], kinds[kind, False]) > 50
    assert len(TELLING) > 100


@pytest.mark.parametrize("apart", [False, True], ids=["one packet", "head, body, next request"])
def test_every_case_is_one_request_or_none(apart):
    for case in CASES:
        packets = (case.head, case.body, FOLLOW) if apart else (case.message + FOLLOW,)
        assert parse(*packets) == expected(case), (case.name, case.headers)


def test_it_does_not_matter_where_packets_are_cut():
    for case in TELLING:
        message, wanted = case.message + FOLLOW, expected(case)
        for at in range(1, len(message)):
            assert parse(message[:at], message[at:]) == wanted, (case.name, at)
        assert parse(*(message[at : at + 1] for at in range(len(message)))) == wanted, case.name


def test_a_body_that_never_comes_is_no_request():
    for case in TELLING:
        if case.right and case.body:
            assert parse(case.head)[0] == parse(case.message[:-1])[0] == []


# ---- the same over sockets ----------------------------------------------------------------------------------------


def answers(connection):
    """Statuses and names of all answers until the server closes; interim responses are none."""
    received = b""
    while data := connection.recv(1 << 16):
        received += data
    whole = received.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    heads = [head for head in re.split(rb"(?=HTTP/1\.1 \d{3} )", whole) if head]
    return [(int(STATUS.match(head)[1]), (ID.search(head) or [b"", b""])[1]) for head in heads]


LAST = FOLLOW.replace(b"Host: x", b"Connection: close")


@pytest.mark.parametrize("apart", [False, True], ids=["one packet", "head, body, next request"])
def test_every_case_over_a_socket(shared, apart):
    """The last request says that the connection is to be closed: then all answers are there."""
    for case in CASES[:: 1 if apart else 3]:
        with shared.connect() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                for packet in (case.head, case.body, LAST) if apart else (case.message + LAST,):
                    connection.sendall(packet)
            except OSError:  # it was refused in the middle
                pass
            got = answers(connection)
        if case.right:
            assert got == ([(200, b"first")] if case.closes else [(200, b"first"), (200, b"follow")]), case
        elif apart and got == [(200, b"first")]:  # answered before its body came, which then ended the connection
            assert parse(case.head)[1] is None, case
        else:
            assert len(got) == 1, case
            assert 400 <= got[0][0] < 500, case
            assert got[0][1] in (b"", b"first"), case


def test_the_body_behind_an_upgrade_is_read(shared):
    """As every client on the JDK's defaults, and curl --http2, sends its first request."""
    body = b'{"prompt": "say it", "max_tokens": 2}'
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    for upgrade in UPGRADES.values():
        lines = b"".join(line + b"\r\n" for line in (*upgrade, b"Content-Length: %d" % len(body)))
        for packets in ((head + lines + b"\r\n", body), (head + lines + b"\r\n" + body,)):
            with shared.connect() as connection:
                for packet in (*packets, LAST):
                    connection.sendall(packet)
                assert [status for status, _ in answers(connection)] == [200, 200]


def test_a_case_is_what_it_says():
    case = Framing("x", (b"A: b",), b"body", True)
    assert case.message == b"GET /version HTTP/1.1\r\nHost: x\r\nX-Request-Id: first\r\nA: b\r\n\r\nbody"
