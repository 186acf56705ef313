"""A lane to a replica of another machine: to the backend it is what the rings of a generation are."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import ipc
from pipeline.front.delivery.ring_client import Late
from pipeline.link.connection import Connection
from pipeline.link.frames import Kind, batches
from pipeline.link.hello import Room

_LATE = 16  # records that are made and sent in a row


class RemoteClient:
    """As `RingClient`, of one generation of the replica. `room`: what its node takes. What is under way to the
    replica's ring is bounded by that: beyond it records wait here, or are refused."""

    def __init__(self, connection: Connection, lane: int, generation: int, room: Room) -> None:
        self._connection, self._lane, self.generation, self._room = connection, lane, generation, room
        self._loop = asyncio.get_running_loop()
        self._outbox: deque[tuple[Late, bool]] = deque()
        self._flushing = False
        self._sent = self._taken = 0  # bytes
        self._ended = asyncio.Event()
        self._on_deltas: Callable[[list[bytes]], None] | None = None  # until then nothing was sent that they answer
        self._on_reply: Callable[[bytes], None] | None = None
        self.resuming = 0
        self.number = 0  # of this generation, as the backend counts them; 0: it was never attached
        self.judged = False  # there is a verdict

    def bind(self, on_deltas: Callable[[list[bytes]], None], on_reply: Callable[[bytes], None]) -> RemoteClient:
        self._on_deltas, self._on_reply = on_deltas, on_reply
        return self

    @property
    def rings(self) -> dict[str, ipc.ByteRing]:
        return {}

    @property
    def max_record(self) -> int:
        return self._room.longest

    @property
    def weights(self) -> str:
        """Id of those that its generation is computed with."""
        return self._room.weights

    @property
    def deterministic(self) -> bool:
        """Requests can be, there."""
        return self._room.deterministic

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    async def run(self) -> None:
        """Until the replica has no rings any more, or the link is gone."""
        await self._ended.wait()

    async def close(self) -> None:
        self.end()

    def end(self) -> None:
        """Nothing more comes or goes."""
        self._ended.set()
        self._outbox.clear()

    # ---- requests -------------------------------------------------------------------------------------------

    @property
    def _under_way(self) -> int:
        return self._sent - self._taken

    def wake(self) -> None:
        """Who will get the request that is being read."""
        self._connection.put(Kind.COMING, b"", self._lane, self.generation)
        self._connection.flush()

    def try_send(self, record: bytes) -> bool:
        """False when there is no room now, or other records wait for it. Raises RingClosed."""
        if self.ended:
            raise ipc.RingClosed("the link to this replica is gone")
        if self._outbox or self._under_way + len(record) > self._room.window:
            return False
        self._send(record)
        return True

    def send_later(self, late: Late, *, resumes: bool = False) -> None:
        """As soon as there is room; not at all if the lane ends before."""
        if not self.ended:
            self._outbox.append((late, resumes))
            self.resuming += resumes
            self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """A record takes half of the room at most, and is made when that is free."""
        self._flushing = False
        for _ in range(_LATE):
            if not self._outbox or self._under_way > self._room.window // 2:
                return
            late, resumes = self._outbox[0]
            record = late()
            if self.ended:
                return
            if record is not None:
                self._send(record)
            self._outbox.popleft()
            self.resuming -= resumes
        self._flush_soon()

    def _send(self, record: bytes) -> None:
        alone = not self._under_way
        (payload,) = batches([record])
        self._connection.send(Kind.REQUESTS, payload, self._lane, self.generation)
        self._sent += len(record)
        if alone:  # it need not wait for others of this pass
            self._connection.flush()

    # ---- what the node says ---------------------------------------------------------------------------------

    def on_taken(self, octets: int) -> None:
        self._taken = octets
        if self._outbox:
            self._flush_soon()

    def on_deltas(self, records: list[bytes]) -> None:
        if self._on_deltas is not None and not self.ended:
            self._on_deltas(records)

    def on_replies(self, records: list[bytes]) -> None:
        if self._on_reply is not None and not self.ended:
            for record in records:
                self._on_reply(record)

    def take_deltas(self) -> list[bytes]:
        """None wait: they are passed on as they come."""
        return []

    def take_replies(self) -> list[bytes]:
        return []
