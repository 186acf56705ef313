"""Threads for what takes longer than somebody else's token may wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pipeline.front.http.errors import OVERLOADED, ClientGone, retry_later
from pipeline.front.http.exchange import Exchange
from pipeline.runtime import background

T = TypeVar("T")

MOST_BYTES = 64 << 20
"""Of bodies that wait. What is parsed takes several times as much."""


class Worker:
    """One thread: several would take turns with the event loop, and keep it waiting several times as long."""

    def __init__(self, name: str, begin: Callable[[], None] | None = None) -> None:
        """`begin` is called by the thread first."""
        self._executor = ThreadPoolExecutor(1, background.PREFIX + name, begin)
        self._bytes = 0  # of the bodies that wait, and of the one that is worked on

    async def run(self, exchange: Exchange, work: Callable[[], T]) -> T:
        """What `work` returns or raises. Raises ApiError 429 when too many wait, ClientGone."""
        size = exchange.body_bytes
        if self._bytes and self._bytes + size > MOST_BYTES:
            raise retry_later(429, "too many large requests wait; try again later", OVERLOADED, 1)
        self._bytes += size
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, _wanted, exchange, work)
        finally:
            self._bytes -= size

    def close(self) -> None:
        """Nobody waits any more."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _wanted(exchange: Exchange, work: Callable[[], T]) -> T:
    """Nothing is done for clients that went away while they waited."""
    _require_there(exchange)
    done = work()
    _require_there(exchange)
    return done


def _require_there(exchange: Exchange) -> None:
    if exchange.connection.lost:
        raise ClientGone("the client closed the connection")
