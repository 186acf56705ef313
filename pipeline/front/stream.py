"""The tokens of one request on their way from the ring to its client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from pipeline.front.errors import ClientGone


class TokenStream:
    """A buffer with one reader. Records are kept packed until their reader writes them out."""

    __slots__ = (
        "_failure",
        "_limit",
        "_loop",
        "_pushed_ns",
        "_records",
        "_shared",
        "_waiter",
        "accepted",
        "on_overrun",
        "request",
        "taken_ns",
        "waited_ns",
    )

    def __init__(self, request: int, limit: int) -> None:
        self.request = request
        self.taken_ns = 0  # when the oldest of the records that were taken last had come off the ring
        self.waited_ns: int | None = None  # in the queue
        self.accepted = False  # it is in the queue, or past it
        self.on_overrun: Callable[[], None] | None = None
        self._limit = limit
        self._pushed_ns = 0
        self._records: list[bytes] = []
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._shared = False  # `wake` is used, not `take`
        self._loop = asyncio.get_running_loop()

    def push(self, record: bytes) -> None:
        """One delta. Beyond the limit, the client does not read: it is cut off."""
        records = self._records
        if not records:
            self._pushed_ns = time.monotonic_ns()
        records.append(record)
        if self._waiter is not None:
            self._wake()
        elif len(records) > self._limit:
            self._overrun()

    def accept(self) -> None:
        self.accepted = True
        if self._shared:
            self._wake()

    def fail(self, failure: Exception) -> None:
        """What was pushed before is still delivered; the first failure counts."""
        if self._failure is None:
            self._failure = failure
        self._wake()

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

    @property
    def failure(self) -> Exception | None:
        return self._failure

    def take_ready(self) -> list[bytes]:
        """As `take`, but none if there are none."""
        if not self._records and self._failure is not None:
            raise self._failure
        records, self._records = self._records, []
        self.taken_ns = self._pushed_ns
        return records

    def wake(self, waiter: asyncio.Future[None]) -> None:
        """Set this future as soon as something happens; other streams may share it."""
        self._waiter, self._shared = waiter, True

    def _overrun(self) -> None:
        self._records.clear()
        self.fail(ClientGone(f"the client did not read {self._limit} tokens"))
        if self.on_overrun is not None:
            self.on_overrun()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
