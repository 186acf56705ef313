"""One client connection: its requests are answered one after the other, whatever the client does.

A public server must withstand headers or a body that never end, clients that never read, and those that send garbage.
It must not lose an answer because the connection is closed with unread data, and must notice when the client is gone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from pipeline.front.http.errors import TIMED_OUT, UNAVAILABLE, ApiError, retry_later
from pipeline.front.http.exchange import BodyMemory, Exchange, Handler
from pipeline.front.http.line import Line, Resets
from pipeline.front.http.request_parser import Head, RequestParser
from pipeline.front.http.responses import CONTINUE, plain_response
from pipeline.front.settings import FrontSettings

_MAX_WATCHING = 64  # connections to the port of /metrics beyond all others
_MAX_REFUSED = 256  # connections beyond the limit that get a 503; others are closed at once
_MAX_PIPELINED = 16  # requests that wait behind one that is being answered before reading pauses
_MOST_PIPELINED = 256  # requests in what was read until then; tiny ones could be thousands
_MOST_HELD = 1 << 16  # bytes of a body that the handler has not taken before reading pauses


class TooManyRequestsError(Exception):
    """A client pipelines more requests than any real client does."""


@dataclass(slots=True)
class Serving:
    """What all connections have in common. Made inside a running loop."""

    settings: FrontSettings
    application: Handler
    bodies: BodyMemory
    announce: Callable[[], None]  # a request that may generate text begins to come in
    resets: Resets = field(default_factory=Resets)
    connections: set[Connection] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class Connection(Line):
    """The line of its exchanges, and the sink of its parser."""

    def __init__(self, serving: Serving) -> None:
        super().__init__(serving.settings, serving.resets)
        self._serving = serving
        self._parser: RequestParser | None = RequestParser(self, self.settings)
        self._read_paused = False
        self._slow: asyncio.TimerHandle | None = None  # runs while a request is incomplete, or none is there
        self._slow_at = 0.0  # on the loop's clock, the end of the limit; the timer may run before. 0: there is none
        self._receiving = self._in_headers = False
        self._fault: ApiError | None = None  # closes the connection once all requests before it are answered
        self._queue: deque[Exchange] = deque()  # behind the active one
        self._active: Exchange | None = None  # that the application works on
        self._newest: Exchange | None = None  # whose body may still come in

    # ---- the life of a connection ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's has another base
        self.client = (transport.get_extra_info("peername") or ("",))[0]
        self.port = transport.get_extra_info("sockname")[1]
        self._serving.connections.add(self)
        self._limit_request(self.settings.keep_alive_s)
        beyond = len(self._serving.connections) - self._most_connections()
        if beyond > _MAX_REFUSED:
            self.abort()
        elif beyond > 0:
            self._refuse(retry_later(503, "too many connections", UNAVAILABLE))

    def _most_connections(self) -> int:
        """Monitoring can still connect to the port for /metrics when the server is overloaded."""
        watching = self.port == self.settings.metrics_port
        return self.settings.max_connections + (_MAX_WATCHING if watching else 0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._serving.connections.discard(self)
        self._stop_limiting()
        for exchange in (self._active, self._newest):
            if exchange is not None:
                exchange.break_off()
        self._queue.clear()
        self._parser = self._active = self._newest = None
        super().connection_lost(exc)

    def _leave(self) -> None:
        if self._leaving or self.transport.is_closing():
            return
        self._stop_limiting()
        self._queue.clear()
        self._begin_close()
        self.pace_reading()

    def shutdown(self) -> None:
        """The server drains."""
        if self._active is None:
            self._leave()
        else:
            self._keep_alive_no_more()

    def _keep_alive_no_more(self) -> None:
        if self._newest is not None:
            self._newest.keep_alive = False

    # ---- one request after the other ------------------------------------------------------------------------

    def _start(self, exchange: Exchange) -> None:
        self._active = exchange
        task = self._loop.create_task(self._run(exchange))
        self._serving.tasks.add(task)
        task.add_done_callback(self._serving.tasks.discard)

    async def _run(self, exchange: Exchange) -> None:
        try:
            await self._serving.application(exchange)
        except asyncio.CancelledError:  # the grace period of a shutdown is over
            if not exchange.started:
                await exchange.refuse(ApiError(503, "the server is shutting down", kind=UNAVAILABLE))
        finally:
            if not exchange.over:
                self.abort()

    def answered(self) -> None:
        done, self._active = self._active, None
        if self._leaving:
            return
        if done is not None and not done.keep_alive:
            self._leave()
        elif self._queue:
            self._start(self._queue.popleft())
        elif not self._receiving:
            self._rest()
        self._conclude()
        self.pace_reading()

    def _rest(self) -> None:
        """There is no request."""
        self._newest = None
        self._limit_request(self.settings.keep_alive_s)

    # ---- what the parser finds ------------------------------------------------------------------------------

    def on_begin(self) -> None:
        if len(self._queue) >= _MOST_PIPELINED:
            raise TooManyRequestsError
        self._receiving = self._in_headers = True
        self._limit_request(self.settings.header_timeout_s)

    def on_head(self, head: Head) -> None:
        self._in_headers = False
        self._limit_request(self.settings.body_timeout_s)
        self._newest = Exchange(head, self, self._serving.bodies)
        if self._active is None:
            self._start(self._newest)
        else:
            self._queue.append(self._newest)

    def on_body(self, data: bytes) -> None:
        if self._newest is not None and not self._newest.complete:
            self._newest.body.add(data)

    def on_end(self) -> None:
        self._receiving = False
        self._limit_request(None)
        if self._newest is not None:
            self._newest.body.finish()
        if self._active is None:  # it was answered before it was complete
            self._rest()

    # ---- clients that send too slowly, too much, or garbage -------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._leaving and not self.write_paused:
            self._linger()
        if self._leaving or self._fault is not None or self._parser is None:
            return
        if self._active is None and data.startswith(b"POST"):  # usually all of it: the sooner it is announced
            self._serving.announce()
        try:
            self._parser.feed(data)
        except ApiError as fault:
            self._refuse(fault)
        except TooManyRequestsError:
            self.abort()
        self.pace_reading()

    def pace_reading(self) -> None:
        pause = self._fault is None and not self._leaving and self._holds_enough
        if self._ended or pause == self._read_paused or self.transport.is_closing():
            return
        self._read_paused = pause
        if pause:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    @property
    def _holds_enough(self) -> bool:
        newest = self._newest
        if newest is not None and newest.body.held > _MOST_HELD and not newest.complete:
            return True
        return len(self._queue) >= _MAX_PIPELINED

    def _limit_request(self, seconds: float | None) -> None:
        """A timer that would run before is left alone: most requests are over long before."""
        self._slow_at = 0.0 if seconds is None else self._loop.time() + seconds
        if self._slow_at and (self._slow is None or self._slow.when() > self._slow_at):
            self._time()

    def _time(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
        self._slow = self._loop.call_at(self._slow_at, self._on_time)

    def _on_time(self) -> None:
        self._slow = None
        if self._slow_at > self._loop.time():
            self._time()
        elif self._slow_at:
            self._too_slow()

    def _stop_limiting(self) -> None:
        self._slow_at = 0.0
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

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
        incomplete = self._incomplete
        if incomplete is not None:
            incomplete.break_off()  # wakes a handler that waits for the rest of its body
            if self._queue and self._queue[-1] is incomplete:
                self._queue.pop()
        self._conclude()

    @property
    def _incomplete(self) -> Exchange | None:
        """The request whose body is still coming in."""
        return self._newest if self._receiving and not self._in_headers else None

    @property
    def _answering(self) -> bool:
        """An answer is being written, or computed for a request that has arrived."""
        active = self._active
        if self._queue:
            return True
        if active is None or active.gone:
            return False
        return active.started or active.body.complete

    def _conclude(self) -> None:
        """Send the error, once it can't end up inside another answer, and close."""
        if self._fault is None or self._leaving or self._answering:
            return
        if self._incomplete is None or not self._incomplete.started:
            self.transport.write(plain_response(self._fault))
        self._leave()

    # ---- clients that have shut down their sending side -------------------------------------------------------

    def eof_received(self) -> bool:
        """Whether the connection stays open, for the answers that are due."""
        self._ended = True
        if self._receiving:
            self._refuse(ApiError(400, "the request is incomplete: the client closed its sending side"))
        if self._leaving or self._active is None:
            return False
        if self._fault is None:  # else that is the last answer
            self._keep_alive_no_more()
        self._begin_probing()
        return True

    def _probe(self) -> None:
        """Interim responses may come at any time before an answer (RFC 9110, 15.2), but not in HTTP/1.0."""
        active = self._active
        if active is not None and active.modern and not active.started and not self.write_paused:
            self.transport.write(CONTINUE)
