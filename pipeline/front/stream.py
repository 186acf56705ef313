"""The tokens of one request on their way from the ring to its client."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable

from pipeline.front.errors import ClientGone
from pipeline.messages import Submit


class TokenStream:
    """A buffer with one reader. Records are kept packed until their reader writes them out.

    The request and the ids of all its tokens are kept until the end: with them it goes on elsewhere, should the
    process that computes it fail.
    """

    __slots__ = (
        "_failure",
        "_limit",
        "_loop",
        "_over",
        "_pushed_ns",
        "_records",
        "_waiter",
        "cached_tokens",
        "message",
        "on_overrun",
        "request",
        "taken_ns",
        "tokens",
        "waited_ns",
    )

    def __init__(self, message: Submit, limit: int) -> None:
        self.message = message
        self.request = message.request
        self.tokens = array("i")
        self.cached_tokens = 0  # of the prompt, at the first admission
        self.taken_ns = 0  # when the oldest of the records that were taken last had come off the ring
        self.waited_ns: int | None = None  # in the queue
        self.on_overrun: Callable[[], None] | None = None
        self._limit = limit
        self._pushed_ns = 0
        self._records: list[bytes] = []
        self._over = False
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def live(self) -> bool:
        """More tokens are wanted."""
        return not self._over and self._failure is None

    def resumption(self) -> bytes | None:
        """What asks for the tokens that are missing; None if none are wanted."""
        if not self.live:
            return None
        return self.message.after(self.tokens.tolist(), self.cached_tokens).pack()

    def push(self, record: bytes, token: int, last: int) -> None:
        """One delta and its token. Beyond the limit, the client does not read: it is cut off."""
        self.tokens.append(token)
        if last:
            self._over = True
        records = self._records
        if not records:
            self._pushed_ns = time.monotonic_ns()
        records.append(record)
        if self._waiter is not None:
            self._wake()
        elif len(records) > self._limit:
            self._overrun()

    def fail(self, failure: Exception) -> None:
        """What was pushed before is still delivered; the first failure counts."""
        if self._failure is None:
            self._failure = failure
        self._wake()

    def stop(self) -> None:
        """Nobody takes records any more."""
        self._over = True

    def disconnect(self) -> None:
        self._records.clear()
        self.fail(ClientGone("the client closed the connection"))

    async def take(self) -> list[bytes]:
        """All records that are there, at least one. Raises ApiError, ClientGone."""
        while not self._records:
            if self._failure is not None:
                raise self._failure
            self._waiter = self._loop.create_future()
            await self._waiter
        records, self._records = self._records, []
        self.taken_ns = self._pushed_ns
        return records

    def _overrun(self) -> None:
        self._records.clear()
        self.fail(ClientGone(f"the client did not read {self._limit} tokens"))
        if self.on_overrun is not None:
            self.on_overrun()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
