"""Waiting for rings by their eventfds in asyncio, with uvloop or any other event loop with `add_reader`.

An end is *armed*, looks once more, and sleeps; the first publish after that writes the eventfd once. There is no
thread and no polling: when a task finds the ring empty (or full), everything else that is ready runs first. While the
loop is busy with the ring nothing is armed, and the other side makes no system call.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

from ipc import _core
from ipc.header import PID_MASK
from ipc.ring import ByteRing, SlotRing

FAIRNESS = 64
"""Messages taken without waiting before other tasks get a turn, unless a consumer is made with another number."""


class _AsyncEnd:
    def __init__(self, ring: SlotRing | ByteRing, event_fd: int, attach: Callable[[], Any], peers: int) -> None:
        self._loop = asyncio.get_running_loop()  # before a role is taken that could not be given back
        if event_fd < 0:
            raise ValueError(f"ring '{ring.name}' was attached by name: asyncio needs a ring attached by handle")
        self._event_fd = os.dup(event_fd)
        try:
            self.end = attach()
        except BaseException:
            os.close(self._event_fd)
            raise
        self._waiter: asyncio.Future[None] | None = None
        self._peers, self._fairness = peers, FAIRNESS
        self._watched: dict[int, int] = {}  # identity → pidfd, -1 once it is known to be dead
        self._identities: list[int] = []  # of the peers, as they were when they were watched last
        self._in_a_row = 0
        self._loop.add_reader(self._event_fd, self._on_event)

    def close(self) -> None:
        """Close this end of the ring and forget its descriptors. Pending waits see RingClosed."""
        self.end.close()
        self._wake()
        if self._event_fd >= 0:
            self._loop.remove_reader(self._event_fd)
            os.close(self._event_fd)
            self._event_fd = -1
            self._watch(set())

    async def _until(self, attempt: Callable[[], Any], need: int) -> Any:
        """What `attempt` returns as soon as that is not None. One task at a time.

        Nothing is awaited once `attempt` has succeeded: a task that is cancelled has taken no message with it.
        """
        rested = await self._let_others_run()
        if (result := attempt()) is not None:
            return result
        if self._waiter is not None:
            raise RuntimeError(f"ring '{self.end.name}': two tasks wait for the same end")
        self._waiter = self._loop.create_future()
        try:
            if not rested:
                await asyncio.sleep(0)  # whatever is ready runs before anything is armed
            while (result := attempt()) is None:
                await self._sleep(need)
        finally:
            self._waiter = None
            self.end.disarm()
        return result

    async def _let_others_run(self) -> bool:
        """A ring that is never empty must not keep the loop for itself. Whether they did."""
        self._in_a_row += 1
        if self._in_a_row < self._fairness:
            return False
        self._in_a_row = 0
        await asyncio.sleep(0)
        return True

    async def _sleep(self, need: int) -> None:
        self._waiter = self._loop.create_future()
        self._watch_peers()
        if self.end.arm(need):  # looks once more: watching may have evicted a consumer and made room
            await self._waiter
            self.end.disarm()

    def _on_event(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event_fd)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _watch_peers(self) -> None:
        """Be woken by the death of a peer, or of the creator while a role is free. Raises PeerDied if it is dead."""
        self.end.check_peer()
        identities = [self.end.peer_identity(i) for i in range(self._peers)]
        if identities != self._identities:
            self._watch({identity or self.end.creator for identity in identities} - {0})
            self._identities = identities

    def _watch(self, identities: set[int]) -> None:
        for identity in self._watched.keys() - identities:
            self._forget(self._watched.pop(identity))
        for identity in identities - self._watched.keys():
            self._watched[identity] = self._open(identity)

    def _open(self, identity: int) -> int:
        try:
            pidfd = os.pidfd_open(identity & PID_MASK)
        except ProcessLookupError:
            self._wake()  # it died just now: the next look says so
            return -1
        self._loop.add_reader(pidfd, self._on_death, identity)
        return pidfd

    def _forget(self, pidfd: int) -> None:
        if pidfd >= 0:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)

    def _on_death(self, identity: int) -> None:
        self._forget(self._watched[identity])  # it would stay readable for ever
        self._watched[identity] = -1
        self._wake()


class AsyncConsumer(_AsyncEnd):
    """A consumer to be awaited: `async for slot in consumer` or `await consumer.read()`.

    `read` raises PeerDied, RingClosed and CorruptRingError like its blocking sibling; to limit the time use
    `asyncio.timeout`. Made inside a running loop.
    """

    def __init__(
        self, ring: SlotRing | ByteRing, consumer: int = 0, *, label: str = "", fairness: int = FAIRNESS
    ) -> None:
        super().__init__(
            ring, ring.data_fd(consumer), lambda: ring.consumer(consumer, label=label, spin_us=0), peers=1
        )
        self._fairness = fairness

    async def read(self) -> _core.ReadSlot:
        """The next slot or record."""
        slot: _core.ReadSlot = await self._until(self.end.try_read, 0)
        return slot

    async def __aiter__(self) -> AsyncIterator[_core.ReadSlot]:
        while True:
            yield await self.read()


class AsyncProducer(_AsyncEnd):
    """A producer to be awaited when the ring is full."""

    def __init__(self, ring: SlotRing | ByteRing, *, label: str = "") -> None:
        attach = lambda: ring.producer(label=label, spin_us=0)  # noqa: E731
        super().__init__(ring, ring.space_fd, attach, peers=ring.consumers)
        self._records = isinstance(ring, ByteRing)

    async def reserve(self, nbytes: int = 0) -> _core.WriteSlot:
        """A free slot, or room for a record of up to `nbytes`."""
        slot: _core.WriteSlot = await self._until(lambda: self.try_reserve(nbytes), nbytes)
        return slot

    def try_reserve(self, nbytes: int = 0) -> _core.WriteSlot | None:
        """As `reserve`, or None when there is no room now."""
        slot: _core.WriteSlot | None = self.end.try_reserve(nbytes) if self._records else self.end.try_reserve()
        return slot
