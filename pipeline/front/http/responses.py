"""HTTP responses, and tokens of many of them that are written together."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from pipeline.front.http.errors import ApiError
from pipeline.front.http.line import Line
from pipeline.front.http.request_parser import Head
from pipeline.front.metrics.trace import Spans
from pipeline.stats import Histograms, RequestHistogram

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_PHRASES: Final = {
    **{status.value: status.phrase for status in HTTPStatus},
    499: "Client Closed Request",  # nginx's: a client has cancelled it; none tries again
    529: "Overloaded",  # Anthropic's
}
_STATUS: Final = {status: b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode()) for status, phrase in _PHRASES.items()}
_BODILESS: Final = (204, 304)
_UNFIT: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # in the value of a header


def plain_response(error: ApiError) -> bytes:
    """A whole response to bytes that are not a valid request; the connection is closed after it."""
    body = error.body()
    headers = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *error.headers)
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return b"%bconnection: close\r\n%b\r\n%b" % (_STATUS[error.status], lines, body)


@lru_cache(1)
def _date(second: int) -> bytes:
    """The header of all responses within a second."""
    return b"date: %b\r\n" % formatdate(second, usegmt=True).encode()


class Response:
    """The answer to one request, written as it is made. `started`: its status line has been sent; `gone`: the client
    will not read the rest. `keep_alive` may be set to false until the answer is complete."""

    def __init__(self, connection: Line, head: Head) -> None:
        self.connection = connection
        self.started = self.complete = self.gone = False
        self.keep_alive, self.modern, self._asks_for_head = head.keep_alive, head.modern, head.method == "HEAD"
        self._bodiless = self._chunked = False
        self._left: int | None = None  # bytes that were announced and not written

    async def begin(self, head: bytes) -> None:
        """`head`: as `make_head` has made it last."""
        if await self._ready():
            self.started = True
            self.connection.transport.write(head)

    def make_head(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
        """A body whose `content-length` is not among the headers is sent in chunks, or ends with the connection where
        the client does not support chunks."""
        self._left = None
        lines = [_STATUS[status], _date(int(time.time()))]
        for name, value in headers:
            if _UNFIT.search(value):
                raise ValueError(f"invalid value of response header {name!r}: {value!r}")
            if name == b"content-length":
                self._left = int(value)
            lines.append(b"%b: %b\r\n" % (name, value))
        self._bodiless = self._asks_for_head or status in _BODILESS
        self._chunked = self.modern and self._left is None and not self._bodiless
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"transfer-encoding: chunked\r\n\r\n" if self._chunked else b"\r\n")
        return b"".join(lines)

    async def write(self, body: bytes) -> None:
        """A part; waits while the client does not keep up."""
        if await self._ready():
            self._put(body)

    async def end(self, body: bytes = b"") -> None:
        """The last part."""
        if not await self._ready():
            return
        self._put(body, b"0\r\n\r\n")
        if self._left and not self._bodiless:
            raise ValueError(f"{self._left} bytes of a response are missing")
        self.complete = True
        self.connection.answered()

    def _put(self, body: bytes, end: bytes = b"") -> None:
        if self._chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + end
        elif self._left is not None:
            self._left -= len(body)
        if body and not self._bodiless:
            self.connection.transport.write(body)

    async def _ready(self) -> bool:
        if self.connection.write_paused and not self.gone:
            await self.connection.drain()
        return not self.gone


class Outbox:
    """Chunks that wait until all that were read off the ring with them are ready, too.

    A system call in between evicts Python's code from the CPU caches: writing each token as soon as it was ready took
    twice the time.
    """

    def __init__(self, times: Histograms, spans: Spans) -> None:
        self._times, self._spans = times, spans
        self._chunks: list[tuple[asyncio.WriteTransport, bytes]] = []

    def put(self, transport: asyncio.WriteTransport, chunk: bytes) -> None:
        """Nothing else may be written there before `flush`."""
        self._chunks.append((transport, chunk))

    def flush(self, since_ns: int) -> None:
        """Write all. `since_ns`: when they were read off the ring."""
        chunks, self._chunks = self._chunks, []
        for transport, chunk in chunks:
            transport.write(chunk)
        if chunks:
            self.record(since_ns, len(chunks))

    def record(self, since_ns: int, count: int = 1) -> None:
        """So many writes are done, of what was read off the ring then."""
        now = time.monotonic_ns()
        self._times.observe(RequestHistogram.FRONT, now - since_ns, count)
        if self._spans.wanted:
            self._spans.add(since_ns, now, "write")

    def note_request(self, arrival_ns: int) -> None:
        """One that arrived then has been read, and sent on."""
        if self._spans.wanted:
            self._spans.add(arrival_ns, time.monotonic_ns(), "read")
