"""One client connection: uvicorn's protocol, with time-outs for clients that are slow in either direction.

What uvicorn leaves open and a public server must not: headers or a body that never end, a client that never reads,
answers to malformed requests as JSON, and telling *every* request of a connection that the client is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from pipeline.front.errors import TIMED_OUT, UNAVAILABLE, ApiError, retry_later
from pipeline.front.settings import FrontSettings

EXTENSION = "ringserve.connection"  # where the application finds the connection in its scope
_MAX_WATCHING = 64  # connections to the port of /metrics beyond all others
_MAX_HEADERS = 256  # of a request, trailers included
_MAX_PIPELINED = 16  # requests that wait behind one that is being answered before reading pauses
_MOST_PIPELINED = 256  # requests that what was read till then may hold; tiny ones would be thousands


class TooManyRequestsError(Exception):
    """A client sends more requests than anybody would without waiting for answers."""


class Connection(HttpToolsProtocol):
    """`on_lost` holds what is to be called once when the connection is gone, with why it is."""

    def __init__(self, *args: Any, settings: FrontSettings, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings = settings
        self.on_lost: set[Callable[[str], None]] = set()
        self._why_lost = "the client closed the connection"
        self.lost = False
        self._slow: asyncio.TimerHandle | None = None  # runs while a request is incomplete
        self._stalled: asyncio.TimerHandle | None = None  # runs while the client does not read
        self._receiving = False
        self._in_headers = True
        self._unparsed_bytes = 0  # of headers that may not be complete yet
        self._header_bytes = self._header_count = 0
        self._fault: ApiError | None = None  # what is wrong with the request, where the parser only knows that it is

    def abort(self) -> None:
        """Close at once, without waiting until the client has read what was written."""
        if self.transport is not None:
            self.transport.abort()

    # ---- the life of a connection ---------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._limit_request(self.settings.keep_alive_s)
        if len(self.connections) > self._most_connections():
            self._answer(retry_later(503, "too many connections", UNAVAILABLE, self.settings.retry_after_s))

    def _most_connections(self) -> int:
        """Whoever watches a server that is overrun still gets in at the port that is for that."""
        watching = self.server is not None and self.server[1] == self.settings.metrics_port
        return self.settings.max_connections + (_MAX_WATCHING if watching else 0)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._slow, self._stalled):
            if timer is not None:
                timer.cancel()
        self.pipeline.clear()
        self.lost = True
        super().connection_lost(exc)
        lost, self.on_lost = self.on_lost, set()
        for notify in lost:
            notify(self._why_lost)

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._abort_later()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._abort_later()

    # ---- clients that send too slowly, too much, or nonsense ------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._unparsed_bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._unparsed_bytes > self.settings.header_limit_bytes:
            self._answer(self._headers_too_long())
        elif 0 < len(self.pipeline) < _MAX_PIPELINED and len(self.cycle.body) <= HIGH_WATER_LIMIT:
            self.flow.resume_reading()  # to see that the client goes away

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= _MOST_PIPELINED:
            raise TooManyRequestsError  # the parser stops, and reports it as a request that is not valid
        super().on_message_begin()
        self._receiving = self._in_headers = True
        self._header_bytes = self._header_count = 0
        self.scope["extensions"] = {EXTENSION: {"connection": self}}
        self._limit_request(self.settings.header_timeout_s)

    def on_url(self, url: bytes) -> None:
        self._count_header(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_count += 1
        self._count_header(len(name) + len(value) + len(": \r\n"))
        super().on_header(name, value)

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self.settings.header_limit_bytes:
            raise self._headers_too_long()
        if self._header_count > _MAX_HEADERS:
            raise self._found(ApiError(431, f"there are more than {_MAX_HEADERS} headers"))

    def _headers_too_long(self) -> ApiError:
        limit = self.settings.header_limit_bytes
        return self._found(ApiError(431, f"the request line and the headers are longer than {limit} bytes"))

    def _found(self, fault: ApiError) -> ApiError:
        """The parser tells of an exception in a callback only that there was one."""
        self._fault = fault
        return fault

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._limit_request(self.settings.body_timeout_s)
        super().on_headers_complete()
        if self.parser.get_http_version() in ("0.9", "1.0"):
            self.cycle.send = UntilClose(self.cycle).send  # type: ignore[method-assign]

    def on_message_complete(self) -> None:
        self._receiving = False
        self._unparsed_bytes = 0
        self._limit_request(None)
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._answer(self._fault or ApiError(400, "this is not a valid HTTP request"))

    def _limit_request(self, seconds: float | None) -> None:
        if self._slow is not None:
            self._slow.cancel()
        self._slow = None if seconds is None else self.loop.call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        if self._answering:
            self._limit_request(self.settings.header_timeout_s)  # let the answer finish that is under way
        elif self._receiving:
            self._answer(ApiError(408, "the request took too long to arrive", kind=TIMED_OUT))
        else:
            self.transport.close()

    @property
    def _answering(self) -> bool:
        """An answer is being written, or computed for a request that has arrived."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        return bool(self.pipeline) or cycle.response_started or not cycle.more_body

    def _answer(self, error: ApiError) -> None:
        """Say what is wrong and close; without a word if that would end up inside another answer."""
        if not self._answering and not self.transport.is_closing():
            self.transport.write(_plain_answer(error))
        self.transport.close()
        self._abort_later()

    # ---- clients that do not read ---------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self._abort_later()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None and not self.transport.is_closing():
            self._stalled.cancel()
            self._stalled = None

    def _abort_later(self) -> None:
        if self._stalled is None:
            self._stalled = self.loop.call_later(self.settings.write_timeout_s, self._cut_off)

    def _cut_off(self) -> None:
        self._why_lost = f"the client did not read for {self.settings.write_timeout_s:g} s"
        self.abort()


class UntilClose:
    """What a cycle sends to a client that knows no chunks: an answer of unknown length ends when the connection does.

    uvicorn's cycle would send chunks. Told that the length is known, it wants to see just as many bytes, so each part
    is announced by itself.
    """

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle, self._send = cycle, cycle.send
        self._open_ended = False

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._open_ended = all(name != b"content-length" for name, _ in message["headers"])
            if self._open_ended:
                self._cycle.chunked_encoding = False
        elif self._open_ended:
            self._cycle.expected_content_length = len(message["body"])
        await self._send(message)


def _plain_answer(error: ApiError) -> bytes:
    body = error.body()
    headers = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *error.headers)
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return b"%bconnection: close\r\n%b\r\n%b" % (STATUS_LINE[error.status], lines, body)
