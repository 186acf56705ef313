"""One client connection: uvicorn's protocol, with time-outs for clients that are slow in either direction.

What uvicorn leaves open and a public server must not: headers or a body that never end, a client that never reads,
answers to malformed requests as JSON, answers that are lost because the connection is closed on data that nobody
read, and telling *every* request of a connection that the client is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from pipeline.front.errors import TIMED_OUT, UNAVAILABLE, ApiError, retry_later
from pipeline.front.responses import UntilClose, plain_response
from pipeline.front.settings import FrontSettings

EXTENSION = "ringserve.connection"  # where the application finds the connection in its scope
_MAX_WATCHING = 64  # connections to the port of /metrics beyond all others
_MAX_REFUSED = 256  # connections beyond the limit that are told so; others are closed at once
_MAX_HEADERS = 256  # of a request, trailers included
_MAX_PIPELINED = 16  # requests that wait behind one that is being answered before reading pauses
_MOST_PIPELINED = 256  # requests that what was read till then may hold; tiny ones would be thousands
_LONGEST_LINGER_S = 30.0
_LINGER_S = 2.0  # for a client that sends nothing more to read its last answer and close


class TooManyRequestsError(Exception):
    """A client sends more requests than anybody would without waiting for answers."""


class Connection(HttpToolsProtocol):
    """`on_lost` holds what is to be called once when the connection is gone, with why it is; `lost` tells that it is
    for ever after."""

    def __init__(self, *args: Any, settings: FrontSettings, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings = settings
        self.timeout_keep_alive = settings.keep_alive_s  # type: ignore[assignment]
        self.on_lost: set[Callable[[str], None]] = set()
        self._why_lost = "the client closed the connection"
        self.lost = False
        self._slow: asyncio.TimerHandle | None = None  # runs while a request is incomplete
        self._stalled: asyncio.TimerHandle | None = None  # runs while the client does not read
        self._receiving = False
        self._in_headers = True
        self._unparsed_bytes = 0  # of headers that may not be complete yet
        self._header_bytes = self._header_count = 0
        self._cause: ApiError | None = None  # of an exception in a callback, of which the parser tells no more
        self._fault: ApiError | None = None  # what ends the connection once all before it is answered
        self._active: RequestResponseCycle | None = None  # the request that the application works on
        self._leaving = False  # everything is said; what still comes is not looked at
        self._leave_by = 0.0  # on the loop's clock

    def abort(self) -> None:
        """Close at once, without waiting until the client has read what was written."""
        if self.transport is not None:
            self.transport.abort()

    # ---- the life of a connection ---------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._polite = SimpleNamespace(write=transport.write, is_closing=self._is_closing, close=self._leave)
        self._limit_request(self.settings.keep_alive_s)
        beyond = len(self.connections) - self._most_connections()
        if beyond > _MAX_REFUSED:
            self.abort()
        elif beyond > 0:
            self._refuse(retry_later(503, "too many connections", UNAVAILABLE, self.settings.retry_after_s))

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
        if self._active is not None:  # uvicorn tells the newest request alone
            self._active.disconnected = True
        super().connection_lost(exc)
        lost, self.on_lost = self.on_lost, set()
        for notify in lost:
            notify(self._why_lost)

    def timeout_keep_alive_handler(self) -> None:
        self._leave()

    def shutdown(self) -> None:
        """The server drains."""
        if self.cycle is None or self.cycle.response_complete:
            self._leave()
        else:
            self.cycle.keep_alive = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._active = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        if not self._leaving:
            super().on_response_complete()
            self._conclude()

    # ---- leaving: closing on data that was not read would take the last answer with it ------------------------

    def _leave(self) -> None:
        """Say that nothing more follows, and wait a little for the client to go first."""
        if self._leaving or self.transport.is_closing():
            return
        self._leaving = True
        self._limit_request(None)
        self._unset_keepalive_if_required()
        self.pipeline.clear()
        self.transport.write_eof()
        self.flow.resume_reading()
        self._leave_by = self.loop.time() + _LONGEST_LINGER_S
        if not self.flow.write_paused:
            self._linger()

    def _linger(self) -> None:
        """Once more as long as it takes; but not for ever, for a client that never ends."""
        self._abort_in(min(_LINGER_S, max(self._leave_by - self.loop.time(), 0)))

    def _linger_on(self) -> bool:
        """What is not even with the kernel yet would be lost."""
        unsent = self._leaving and self.transport.get_write_buffer_size() > 0
        if unsent and self.loop.time() < self._leave_by:
            self._linger()
            return True
        return False

    def _is_closing(self) -> bool:
        return self._leaving or bool(self.transport.is_closing())

    # ---- clients that send too slowly, too much, or nonsense ------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._leaving and not self.flow.write_paused:
            self._linger()
        if self._leaving or self._fault is not None:
            return
        self._unparsed_bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._unparsed_bytes > self.settings.header_limit_bytes:
            self._refuse(self._headers_too_long())
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
            self._cause = ApiError(431, f"there are more than {_MAX_HEADERS} headers")
            raise self._cause

    def _headers_too_long(self) -> ApiError:
        limit = self.settings.header_limit_bytes
        self._cause = ApiError(431, f"the request line and the headers are longer than {limit} bytes")
        return self._cause

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._limit_request(self.settings.body_timeout_s)
        super().on_headers_complete()
        self.cycle.transport = self._polite  # type: ignore[assignment]
        if self.scope["http_version"] != "1.1":
            self.cycle.send = UntilClose(self.cycle).send  # type: ignore[method-assign]

    def on_message_complete(self) -> None:
        self._receiving = False
        self._unparsed_bytes = 0
        self._limit_request(None)
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if len(self.pipeline) >= _MOST_PIPELINED:
            self.abort()
        else:
            self._refuse(self._cause or ApiError(400, "this is not a valid HTTP request"))

    def _limit_request(self, seconds: float | None) -> None:
        if self._slow is not None:
            self._slow.cancel()
        self._slow = None if seconds is None else self.loop.call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        if self._answering and self._incomplete is not self._active:
            self._limit_request(self.settings.header_timeout_s)  # the client may wait for that, or we do not read on
        elif self._receiving:
            self._refuse(ApiError(408, "the request took too long to arrive", kind=TIMED_OUT))
        else:
            self._leave()

    # ---- requests that can't be understood: they are answered in their turn, and are the last --------------------

    def _refuse(self, fault: ApiError) -> None:
        if self._fault is not None or self._leaving:
            return
        self._fault = fault
        self._limit_request(None)
        self.flow.resume_reading()  # to see that the client goes away
        incomplete = self._incomplete
        if incomplete is not None:
            incomplete.disconnected = True  # whoever waits for the rest of its body gets to know
            incomplete.message_event.set()
            if self.pipeline and self.pipeline[0][0] is incomplete:
                self.pipeline.popleft()
        self._conclude()

    @property
    def _incomplete(self) -> RequestResponseCycle | None:
        """The request whose body is still coming in."""
        return self.cycle if self._receiving and not self._in_headers else None

    @property
    def _answering(self) -> bool:
        """An answer is being written, or computed for a request that has arrived."""
        active = self._active
        if self.pipeline:
            return True
        if active is None or active.response_complete or active.disconnected:
            return False
        return active.response_started or not active.more_body

    def _conclude(self) -> None:
        """Say what is wrong, once it can't end up inside another answer, and leave."""
        if self._fault is None or self._leaving or self._answering:
            return
        if self._incomplete is None or not self._incomplete.response_started:
            self.transport.write(plain_response(self._fault))
        self._leave()

    # ---- clients that do not read ---------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        seconds = self.settings.write_timeout_s
        self._abort_in(seconds, f"the client did not read for {seconds:g} s")

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        if self._leaving:
            self._linger()

    def _abort_in(self, seconds: float, why: str = "") -> None:
        if self._stalled is not None:
            self._stalled.cancel()
        self._stalled = self.loop.call_later(seconds, self._cut_off, why)

    def _cut_off(self, why: str) -> None:
        self._stalled = None
        if self._linger_on():
            return
        self._why_lost = why or self._why_lost
        self.abort()
