"""One side of a link: frames in and out over one connection, heartbeats, and bounds.

What is to be sent is gathered during a pass of the event loop and written at once, so tokens of a step go out in one
write. What waits because the other side does not read is bounded: beyond it the link is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from pipeline.link.frames import Frame, FrameReader, FrameWriter, Kind, LinkError

MISSED = 3
"""Heartbeats after which the other side is away."""

MOST_UNREAD = 8 << 20
"""Bytes that wait for the other side to read them."""

_REASON_BYTES = 1000


def split_place(place: str) -> tuple[str, int]:
    """Host and port, as `pipeline.config` has checked them."""
    host, _, port = place.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


class Connection(asyncio.Protocol):
    """`on_frames` gets those that came together, and may raise LinkError; `on_lost` is called once, with the reason.
    Made inside a running loop."""

    def __init__(
        self,
        longest: int,
        heartbeat_s: float,
        on_frames: Callable[[list[Frame]], None],
        on_lost: Callable[[str], None],
        most_unread: int = MOST_UNREAD,
    ) -> None:
        self.reader, self._writer = FrameReader(longest), FrameWriter()
        self._on_frames, self._on_lost = on_frames, on_lost
        self._heartbeat_s, self._most_unread = heartbeat_s, most_unread
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._heard = self._loop.time()
        self._beat: asyncio.TimerHandle | None = None
        self._beat_due = 0.0
        self._paused = False
        self._why = ""
        self.lost = False
        self.received = self.sent = 0  # bytes

    # ---- the loop's -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._heard = self._loop.time()
        self._beat_later()

    def data_received(self, data: bytes) -> None:
        if self.lost or self._why:
            return
        self.received += len(data)
        try:
            frames = [*self.reader.feed(data)]
            if self.reader.greeted:  # until then bytes are no sign of life: anybody can send some
                self._heard = self._loop.time()
            if frames:
                self._on_frames(frames)
        except LinkError as error:
            self.close(str(error))

    def connection_lost(self, error: Exception | None) -> None:
        self._lose(self._why or (f"the connection broke: {error}" if error else "the other side closed it"))

    def _beat_later(self) -> None:
        self._beat_due = self._loop.time() + self._heartbeat_s
        self._beat = self._loop.call_at(self._beat_due, self._on_beat)

    def _on_beat(self) -> None:
        """Time in which this side did not listen is no silence of the other."""
        now = self._loop.time()
        self._heard = now if self._paused else self._heard + max(0.0, now - self._beat_due)
        silent = now - self._heard
        if silent > MISSED * self._heartbeat_s:
            self.abort(f"nothing was heard for {silent:.1f} s")
            return
        if self.reader.greeted:
            self.send(Kind.BEAT)
        self._beat_later()

    def pause(self, paused: bool) -> None:
        """Read nothing for now, or go on."""
        if self._transport is not None and paused != self._paused and not self.lost:
            self._paused = paused
            (self._transport.pause_reading if paused else self._transport.resume_reading)()

    # ---- sending ----------------------------------------------------------------------------------------------

    def send(self, kind: Kind, payload: bytes = b"", lane: int = 0, generation: int = 0) -> None:
        """With all others of this pass; dropped if the link is gone."""
        if not self._unsent:
            self._loop.call_soon(self.flush)
        self.put(kind, payload, lane, generation)

    def put(self, kind: Kind, payload: bytes = b"", lane: int = 0, generation: int = 0) -> None:
        """As `send`, where `flush` follows."""
        if not self.lost and not self._why:
            self._unsent.append(self._writer.frame(kind, payload, lane, generation))

    def flush(self) -> None:
        """Write what was sent in this pass, now."""
        transport, unsent = self._transport, self._unsent
        if transport is None or self.lost or not unsent:
            return
        data = b"".join(unsent) if len(unsent) > 1 else unsent[0]
        unsent.clear()
        self.sent += len(data)
        transport.write(data)
        if transport.get_write_buffer_size() > self._most_unread:
            self.abort(f"{transport.get_write_buffer_size()} bytes wait: the other side does not read")

    # ---- the end ----------------------------------------------------------------------------------------------

    def close(self, why: str, kind: Kind = Kind.CLOSED) -> None:
        """The other side is told why, if it still reads."""
        if self.lost or self._why:
            return
        self.send(kind, why.encode()[:_REASON_BYTES])
        self.flush()
        self._why = why
        if self._transport is not None:
            self._transport.close()
            self._loop.call_later(self._heartbeat_s, self.abort, why)  # it may not read

    def abort(self, why: str) -> None:
        """At once."""
        self._why = self._why or why
        if self._transport is not None:
            self._transport.abort()
        self._lose(self._why)

    def _lose(self, why: str) -> None:
        if self.lost:
            return
        self.lost = True
        if self._beat is not None:
            self._beat.cancel()
        self._unsent.clear()
        self._on_lost(why)
