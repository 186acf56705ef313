"""The front's ends of the rings of one generation, from attaching until they close."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable
from itertools import count

import ipc
from pipeline.front.settings import FrontRings

_LATE = 16  # records that are made and sent in a row
_BATCH = 1024  # records that are dispatched together; under load each write then holds several

Late = Callable[[], bytes | None]
"""Makes a record when there is room for it; None: it is not needed any more."""


class RingClient:
    """Made inside a running loop. `on_deltas` gets tokens that have arrived together; before it looks at them, it is
    to take the replies that are there (`take_replies`). `on_reply` gets replies that come alone. `run` returns when
    no more can arrive. What preprocess has said of a request before its first token was in its ring first: whoever
    has the one finds the other.

    Records that do not fit into the ring of requests at once wait in an outbox, in order.
    """

    deterministic = True  # or its preprocess refuses what is to be; all replicas of this machine are alike

    def __init__(
        self, rings: FrontRings, on_deltas: Callable[[list[bytes]], None], on_reply: Callable[[bytes], None]
    ) -> None:
        self._on_deltas, self._on_reply = on_deltas, on_reply
        self._rings = [ipc.ByteRing.from_handle(handle) for handle in (rings.requests, rings.replies, rings.deltas)]
        requests, replies, deltas = self._rings
        self._requests = ipc.AsyncProducer(requests, label="front")
        self._replies = ipc.AsyncConsumer(replies, label="front")
        self._deltas = ipc.AsyncConsumer(deltas, label="front", fairness=1)  # transports write, other tasks run
        self._outbox: deque[tuple[Late, bool]] = deque()
        self._flushing: asyncio.Task[None] | None = None
        self.resuming = 0  # requests in the outbox that were sent in an earlier generation, too
        self._readers = [asyncio.create_task(read()) for read in (self._read_deltas, self._read_replies)]

    @property
    def rings(self) -> dict[str, ipc.ByteRing]:
        return {ring.name: ring for ring in self._rings}

    @property
    def max_record(self) -> int:
        """Bytes of the longest request."""
        return int(self._requests.end.max_record)

    async def run(self) -> None:
        """Until both rings have ended, or `close`. Raises what parsing a record raises."""
        await asyncio.wait(self._readers, return_when=asyncio.FIRST_EXCEPTION)
        for reader in self._readers:
            if reader.done() and not reader.cancelled():
                reader.result()

    async def close(self) -> None:
        """Dispatch what the rings still hold, and detach from them."""
        tasks = [*self._readers, *([self._flushing] if self._flushing else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            deltas = _left(self._deltas.end)
            for record in self.take_replies():
                self._on_reply(record)
            self._on_deltas(deltas)
        finally:
            for end in (self._requests, self._replies, self._deltas):
                end.close()
            for ring in self._rings:
                ring.close()

    # ---- requests -------------------------------------------------------------------------------------------

    def try_send(self, record: bytes) -> bool:
        """False when there is no room now, or other records wait for it. Raises PeerDied, RingClosed."""
        slot = None if self._outbox else self._requests.try_reserve(len(record))
        if slot is None:
            return False
        slot.write(record)
        slot.publish()
        return True

    def wake(self) -> None:
        """Whoever reads the requests, before there is one."""
        os.eventfd_write(self._rings[0].data_fd(), 1)

    def send_later(self, late: Late, *, resumes: bool = False) -> None:
        """As soon as there is room; not at all if the rings close before."""
        self._outbox.append((late, resumes))
        self.resuming += resumes
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())

    async def _flush(self) -> None:
        with contextlib.suppress(ipc.PeerDied, ipc.RingClosed):
            for number in count(1):
                if not self._outbox:
                    break
                if number % _LATE == 0:
                    await asyncio.sleep(0)  # let other tasks run
                late, resumes = self._outbox[0]
                record = late()
                if record is not None:
                    slot = await self._requests.reserve(len(record))
                    slot.write(record)
                    slot.publish()
                self._outbox.popleft()
                self.resuming -= resumes

    # ---- answers --------------------------------------------------------------------------------------------

    async def _read_deltas(self) -> None:
        deltas = self._deltas
        with contextlib.suppress(ipc.PeerDied, ipc.RingClosed):
            while True:
                with await deltas.read() as slot:
                    records = [bytes(slot)]
                try:
                    records += self.take_deltas()
                finally:
                    self._on_deltas(records)

    def take_deltas(self) -> list[bytes]:
        """Those that are there; whoever waits for them finds none. Raises PeerDied, RingClosed."""
        end = self._deltas.end
        return end.read_many(_BATCH, 0) if end.occupancy else []

    def take_replies(self) -> list[bytes]:
        return _left(self._replies.end)

    async def _read_replies(self) -> None:
        with contextlib.suppress(ipc.PeerDied, ipc.RingClosed):
            while True:
                with await self._replies.read() as slot:
                    self._on_reply(bytes(slot))


def _left(end: ipc.ByteConsumer) -> list[bytes]:
    records: list[bytes] = []
    with contextlib.suppress(ipc.PeerDied, ipc.RingClosed):
        while end.occupancy and (slot := end.try_read()) is not None:
            with slot:
                records.append(bytes(slot))
    return records
