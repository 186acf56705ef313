"""The clients of an answer that is kept, which come and go: each reads from any event on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from pipeline.front.delivery.kept.written import Written
from pipeline.front.http.errors import ClientGone
from pipeline.front.http.exchange import Exchange
from pipeline.front.http.responses import Outbox


class Host(Protocol):
    """Of an audience."""

    def deserted(self) -> None:
        """The last client has left."""
        ...

    def give_up(self, why: str) -> None:
        """None has come back in time."""
        ...


@dataclass(slots=True, eq=False)
class _Listener:
    """A client that reads an answer. `waiter`: it waits, and has got what there is."""

    exchange: Exchange
    position: int
    reads: bool = True  # the events
    waiter: asyncio.Future[None] | None = None
    ping: bytes = b""

    async def wait(self) -> None:
        """Until it is woken."""
        self.waiter = asyncio.get_running_loop().create_future()
        await self.waiter

    def lose(self, _: str) -> None:
        self.wake()

    def wake(self) -> None:
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Audience:
    """`patience_s`: how long it may be empty."""

    def __init__(self, written: Written, patience_s: float, host: Host) -> None:
        self.attended = False  # a client reads it
        self._written, self._patience_s, self._host = written, patience_s, host
        self._listeners: set[_Listener] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._listeners)

    @property
    def reads_on(self) -> bool:
        """There are clients, and all read it to its end."""
        return bool(self._listeners) and all(one.reads and not one.exchange.gone for one in self._listeners)

    @property
    def position(self) -> int:
        """All have got what lies before."""
        return min((listener.position for listener in self._listeners), default=len(self._written.events))

    # ---- what is new ----------------------------------------------------------------------------------------------

    def pass_on(self, made: bytes, before: int, outbox: Outbox | None) -> None:
        """These events, which follow so many others. With an outbox they go to clients that wait in this pass."""
        for listener in list(self._listeners):
            exchange = listener.exchange
            at_end = listener.waiter is not None and listener.position == before
            if outbox is None or not at_end or not exchange.started or not exchange.keeps_up:
                listener.wake()
            else:
                exchange.write_soon(made, outbox)
                listener.position = len(self._written.events)

    def ping(self, piece: bytes) -> None:
        """For clients that wait."""
        for listener in list(self._listeners):
            listener.ping = piece
            listener.wake()

    def wake(self) -> None:
        for listener in list(self._listeners):
            listener.wake()

    # ---- its clients ----------------------------------------------------------------------------------------------

    async def play(self, exchange: Exchange, position: int) -> None:
        """Answer from the event at this position on. Raises ApiError, ClientGone."""
        with self._attended(_Listener(exchange, position)) as listener:
            while not await self._serve(listener):
                if not self._has_news(listener):  # writing may have taken its time
                    await listener.wait()

    async def show_head(self, exchange: Exchange) -> None:
        """As far as it is known, at once. Raises ApiError."""
        if not await self._is_told_whole(exchange):
            await self._start(exchange)
            await exchange.end()

    async def until(self, exchange: Exchange, holds: Callable[[], bool]) -> None:
        """Raises ClientGone."""
        with self._attended(_Listener(exchange, 0, reads=False)) as listener:
            while not holds():
                await listener.wait()
                _require_there(exchange)

    async def _serve(self, listener: _Listener) -> bool:
        """Write what there is; whether that was all."""
        exchange, written = listener.exchange, self._written
        _require_there(exchange)
        if await self._is_told_whole(exchange):
            return True
        new, listener.position = written.events[listener.position :], max(listener.position, len(written.events))
        ping, listener.ping = listener.ping, b""
        if written.head is not None and (new or ping or written.complete) and not exchange.started:
            await self._start(exchange)
        if written.complete and listener.position >= len(written.events):
            await exchange.end(b"".join(new))
            return True
        if new or ping:
            await exchange.write(b"".join(new) or ping)
        return False

    async def _is_told_whole(self, exchange: Exchange) -> bool:
        """What is no stream, if it is none. Raises ApiError."""
        written = self._written
        if written.error is not None:
            raise written.error
        if written.whole is None:
            return False
        status, body, content_type, headers = written.whole
        await exchange.respond(status, body, content_type, [*headers, written.name])
        return True

    async def _start(self, exchange: Exchange) -> None:
        status, kind, headers = self._written.head or (200, None, ())
        await exchange.start(status, kind, [*headers, self._written.name])

    def _has_news(self, listener: _Listener) -> bool:
        written = self._written
        return (
            listener.position < len(written.events) or written.over or bool(listener.ping) or listener.exchange.gone
        )

    @contextmanager
    def _attended(self, listener: _Listener) -> Iterator[_Listener]:
        listener.exchange.connection.on_lost.add(listener.lose)
        self._listeners.add(listener)
        self.attended |= listener.reads
        self._stop_waiting()
        try:
            yield listener
        finally:
            listener.exchange.connection.on_lost.discard(listener.lose)
            self._listeners.discard(listener)
            self.attended = any(other.reads for other in self._listeners)
            if not self._listeners:
                self._host.deserted()
            self.wait()

    # ---- while there are none -------------------------------------------------------------------------------------

    def wait(self) -> None:
        """For a client, if there is none: not for ever."""
        if not self._listeners and self._timer is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(self._patience_s, self._expire)

    def _expire(self) -> None:
        self._host.give_up(f"its client did not come back within {self._patience_s:g} s")

    def close(self) -> None:
        """Nobody is waited for any more."""
        self._closed = True
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _require_there(exchange: Exchange) -> None:
    if exchange.gone:
        raise ClientGone("the client closed the connection")
