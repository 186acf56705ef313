"""Admits requests that generate text, until the server drains."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

from pipeline.front.delivery.job import Identity
from pipeline.front.http.errors import UNAVAILABLE, retry_later
from pipeline.front.http.exchange import Exchange

SHUTTING_DOWN = "the server is shutting down"


class Admission:
    """Made inside a running loop."""

    def __init__(self) -> None:
        self.draining = False
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextlib.contextmanager
    def request(self, exchange: Exchange) -> Iterator[Identity]:
        """Held while the request is served. Raises ApiError 503 once the server drains: connections are still
        answered then, since a client could not distinguish a closed one from a broken network; 429 where its key has
        as many requests as it may. What a front before has let in is let in."""
        if self.draining and not exchange.again:
            raise retry_later(503, SHUTTING_DOWN, UNAVAILABLE)
        account, exchange.metered = exchange.account, True
        if account is not None:
            account.begin(again=exchange.again)
        self._under_way += 1
        self._idle.clear()
        try:
            exchange.created = exchange.created or int(time.time())
            yield Identity(exchange.seed, exchange.created)
        finally:
            self._under_way -= 1
            if account is not None:
                account.end()
            if not self._under_way:
                self._idle.set()

    async def drain(self, seconds: float) -> None:
        """Admit no more requests, and wait at most so long for those that are being served."""
        self.draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
