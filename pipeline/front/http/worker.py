"""Threads for work that would delay other clients' tokens too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pipeline.front.http.errors import OVERLOADED, ClientGone, retry_later
from pipeline.front.http.exchange import Exchange

T = TypeVar("T")

MOST_BYTES = 64 << 20
"""Of bodies that wait. A parsed body takes several times as much."""


class Worker:
    """One thread: several would compete with the event loop for the GIL, and delay it several times as long."""

    def __init__(self, name: str, begin: Callable[[], None] | None = None) -> None:
        """The thread calls `begin` first."""
        self._executor = ThreadPoolExecutor(1, name, begin)
        self._bytes = 0  # of the bodies that wait, and of the one that is worked on

    async def run(self, exchange: Exchange, work: Callable[[], T]) -> T:
        """What `work` returns or raises. Raises ApiError 429 when too many wait, ClientGone."""
        size = exchange.body_bytes
        if self._bytes and self._bytes + size > MOST_BYTES:
            raise retry_later(429, "too many large requests at once; try again later", OVERLOADED)
        self._bytes += size
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, _wanted, exchange, work)
        finally:
            self._bytes -= size

    def close(self) -> None:
        """Cancels work that waits, and waits for none."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _wanted(exchange: Exchange, work: Callable[[], T]) -> T:
    """Skips the work of clients that disconnected while they waited."""
    _require_connected(exchange)
    done = work()
    _require_connected(exchange)
    return done


def _require_connected(exchange: Exchange) -> None:
    if exchange.connection.lost:
        raise ClientGone("the client closed the connection")
