"""`/live`: the figures as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

They are computed once for all clients, and only while there are any. The other stages take no part: their counters
are on the statistics page. A client that reads slowly misses events; one that does not read at all is disconnected
after `write_timeout_s`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

import orjson

from pipeline.front.http.errors import UNAVAILABLE, retry_later
from pipeline.front.http.exchange import Exchange
from pipeline.front.page.figures import LATENCY_S, Sample, figures
from pipeline.stats import RingEnds, StatsReader

INTERVAL_S: Final = 0.25
MAX_WATCHERS: Final = 32
_HEADERS = ((b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))
_KEPT: Final = round(LATENCY_S / INTERVAL_S) + 1


class LiveFeed:
    """`about` is the first event, with what does not change. Made inside a running loop."""

    def __init__(self, stats: StatsReader, ends: RingEnds, about: dict[str, Any]) -> None:
        self._stats, self._ends = stats, ends
        self._about, self._watchers = about, 0
        self._ticking: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.Future[bytes] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()

    def close(self) -> None:
        """End every stream: the server stops."""
        self._closed.set_result(None)

    async def watch(self, exchange: Exchange) -> None:
        """Raises ApiError 503 when there are too many clients already."""
        if self._watchers >= MAX_WATCHERS:
            message = f"{MAX_WATCHERS} clients are watching already, the most that are served; try again later"
            raise retry_later(503, message, UNAVAILABLE)
        await exchange.start(200, b"text/event-stream", _HEADERS)
        if exchange.method != "HEAD":
            await self._send_events(exchange)
        await exchange.end()

    async def _send_events(self, exchange: Exchange) -> None:
        """Until the client is gone, or the server stops."""
        gone: asyncio.Future[str] = self._loop.create_future()
        exchange.connection.on_lost.add(gone.set_result)
        ticking = self._enter()
        try:
            await exchange.write(_event("about", self._about))
            while not gone.done() and not self._closed.done():
                upcoming = self._next
                awaited: list[asyncio.Future[Any]] = [upcoming, ticking, gone, self._closed]
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                if ticking.done():
                    ticking.result()  # raises what went wrong
                if upcoming.done():
                    await exchange.write(upcoming.result())
        finally:
            self._leave()
            exchange.connection.on_lost.discard(gone.set_result)

    def _enter(self) -> asyncio.Task[None]:
        self._watchers += 1
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._tick())
        return self._ticking

    def _leave(self) -> None:
        self._watchers -= 1
        if not self._watchers and self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None

    async def _tick(self) -> None:
        samples: deque[Sample] = deque(maxlen=_KEPT)
        while True:
            self._ends.copy()
            samples.append(Sample.take(self._stats))
            if len(samples) > 1:  # one alone says nothing about rates
                current, self._next = self._next, self._loop.create_future()
                current.set_result(_event("figures", figures(samples)))
            await asyncio.sleep(INTERVAL_S)


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))
