"""The body of a request, from its connection to its handler."""

from __future__ import annotations

import asyncio

from pipeline.front.http.errors import ClientGone


class RequestBody:
    """A buffer with one reader. `held`: bytes in it; `complete`: no more will come."""

    __slots__ = ("_gone", "_parts", "_waiter", "complete", "held")

    def __init__(self) -> None:
        self.complete = self._gone = False
        self.held = 0
        self._parts: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None

    def add(self, data: bytes) -> None:
        self._parts.append(data)
        self.held += len(data)
        self._wake()

    def finish(self) -> None:
        self.complete = True
        self._wake()

    def break_off(self) -> None:
        """The rest will never come."""
        self._gone = True
        self._wake()

    @property
    def awaited(self) -> bool:
        """There is nothing to take."""
        return not self._parts and not self.complete and not self._gone

    async def take(self) -> bytes:
        """Bytes that have arrived; waits for some unless the body is complete. Raises ClientGone."""
        while self.awaited:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._gone:
            raise ClientGone("the client closed the connection")
        data = b"".join(self._parts)
        self._parts.clear()
        self.held = 0
        return data

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
