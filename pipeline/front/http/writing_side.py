"""The writing side of a connection: clients that do not read, and closing without losing the last answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pipeline.front.settings import FrontSettings

_LONGEST_LINGER_S = 30.0
_LINGER_S = 2.0  # for a client that sends nothing more to read its last answer and close


class WritingSide(asyncio.Protocol):
    """The part of a `Line` that does not depend on requests. Made inside a running loop."""

    transport: asyncio.Transport

    def __init__(self, settings: FrontSettings) -> None:
        self.settings, self._loop = settings, asyncio.get_running_loop()
        self.on_lost: set[Callable[[str], None]] = set()
        self._why_lost = "the client closed the connection"
        self.lost = self.write_paused = False
        self._writable = asyncio.Event()
        self._stalled: asyncio.TimerHandle | None = None  # runs while the client does not read
        self._leaving = False  # the last answer has been written; data that still arrives is ignored
        self._leave_by = 0.0  # on the loop's clock

    def abort(self) -> None:
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.resume_writing()
        lost, self.on_lost = self.on_lost, set()
        for notify in lost:
            notify(self._why_lost)

    # ---- clients that do not read ---------------------------------------------------------------------------

    def pause_writing(self) -> None:
        self.write_paused = True
        self._writable.clear()
        seconds = self.settings.write_timeout_s
        self._abort_in(seconds, f"the client did not read for {seconds:g} s")

    def resume_writing(self) -> None:
        self.write_paused = False
        self._writable.set()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        if self._leaving and not self.lost:
            self._linger()

    async def drain(self) -> None:
        while self.write_paused:
            await self._writable.wait()

    def _abort_in(self, seconds: float, why: str = "") -> None:
        if self._stalled is not None:
            self._stalled.cancel()
        self._stalled = self._loop.call_later(seconds, self._cut_off, why)

    def _cut_off(self, why: str) -> None:
        self._stalled = None
        if self._linger_on():
            return
        self._why_lost = why or self._why_lost
        self.abort()

    # ---- lingering close: closing with unread data would reset the connection, and lose the last answer ---------

    def _begin_close(self, *, client_ended: bool) -> None:
        """Shut down the sending side, and wait a little for the client to close first, if it has not."""
        self._leaving = True
        if client_ended:
            self.transport.close()
        else:
            self.transport.write_eof()
        self._leave_by = self._loop.time() + _LONGEST_LINGER_S
        if not self.write_paused:
            self._linger()

    def _linger(self) -> None:
        """Wait once more; but not for ever, for a client that never stops sending."""
        self._abort_in(min(_LINGER_S, max(self._leave_by - self._loop.time(), 0)))

    def _linger_on(self) -> bool:
        """Bytes that the kernel has not taken yet would be lost."""
        unsent = self._leaving and self.transport.get_write_buffer_size() > 0
        if unsent and self._loop.time() < self._leave_by:
            self._linger()
            return True
        return False
