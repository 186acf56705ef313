"""The line to a client: whether it reads, whether it is still there, and closing without losing the last answer."""

from __future__ import annotations

import asyncio
import select
from abc import ABC, abstractmethod
from collections.abc import Callable

from pipeline.front.settings import FrontSettings

_PROBE_S = 1.0
_LONGEST_LINGER_S = 30.0
_LINGER_S = 2.0  # for a client that sends nothing more to read its last answer and close


class Resets:
    """Which of the clients that have shut down their sending side are gone.

    Both look alike until something is sent to them, to which the host of one that is gone answers with a reset. The
    event loop does not read after an end of data, and would notice a reset only at its next write; epoll reports it
    even for a socket that is registered for no event. Made inside a running loop; `close` ends it.
    """

    def __init__(self) -> None:
        self._loop, self._epoll = asyncio.get_running_loop(), select.epoll()
        self._watched: dict[int, Callable[[], None]] = {}
        self._loop.add_reader(self._epoll.fileno(), self._notify)

    def watch(self, descriptor: int, on_reset: Callable[[], None]) -> None:
        """`forget` the descriptor before it is closed."""
        self._watched[descriptor] = on_reset
        self._epoll.register(descriptor, 0)  # EPOLLHUP and EPOLLERR are always reported

    def forget(self, descriptor: int) -> None:
        """Harmless for one that is not watched."""
        if self._watched.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def _notify(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            on_reset = self._watched.get(descriptor)
            self.forget(descriptor)
            if on_reset is not None:
                on_reset()

    def close(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()


class Line(asyncio.Protocol, ABC):
    """The part of a connection that a request sees. Made inside a running loop.

    `on_lost` holds functions that are called once, with the reason, when the connection is lost; from then on `lost`
    is true. `write_paused`: the client does not keep up.
    """

    transport: asyncio.Transport
    client: str  # its address, empty if it has disconnected already
    port: int  # that it connected to

    def __init__(self, settings: FrontSettings, resets: Resets | None = None) -> None:
        self.settings, self._resets, self._loop = settings, resets, asyncio.get_running_loop()
        self.on_lost: set[Callable[[str], None]] = set()
        self._why_lost = "the client closed the connection"
        self.lost = self.write_paused = False
        self._writable = asyncio.Event()
        self._stalled: asyncio.TimerHandle | None = None  # runs while the client does not read
        self._probing: asyncio.TimerHandle | None = None  # runs while a client that can't send any more waits
        self._descriptor = -1  # of its socket
        self._ended = False  # the client has shut down its sending side
        self._leaving = False  # the last answer has been written; data that still arrives is ignored
        self._leave_by = 0.0  # on the loop's clock

    @abstractmethod
    def pace_reading(self) -> None:
        """Pause while more has arrived than is needed; else read on, if only to notice a disconnect."""

    @abstractmethod
    def answered(self) -> None:
        """The answer is complete."""

    @abstractmethod
    def _probe(self) -> None:
        """Send something to which the host of a client that is gone would answer with a reset, if that is allowed."""

    def abort(self) -> None:
        """Close at once, without waiting until the client has read what was written."""
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._stop_probing()
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
        """Until the client keeps up, or is gone."""
        while self.write_paused:
            await self._writable.wait()

    def _abort_in(self, seconds: float, why: str = "") -> None:
        if self._stalled is not None:
            self._stalled.cancel()
        self._stalled = self._loop.call_later(seconds, self._cut_off, why)

    def _cut_off(self, why: str) -> None:
        self._stalled = None
        unsent = self._leaving and self.transport.get_write_buffer_size() > 0
        if unsent and self._loop.time() < self._leave_by:
            self._linger()  # bytes that the kernel has not taken yet would be lost
        else:
            self._why_lost = why or self._why_lost
            self.abort()

    # ---- lingering close: closing with unread data would reset the connection, and lose the last answer ---------

    def _begin_close(self) -> None:
        """Shut down the sending side, and wait a little for the client to close first, if it has not."""
        self._stop_probing()
        self._leaving = True
        if self._ended:
            self.transport.close()
        else:
            self.transport.write_eof()
        self._leave_by = self._loop.time() + _LONGEST_LINGER_S
        if not self.write_paused:
            self._linger()

    def _linger(self) -> None:
        """Wait once more; but not for ever, for a client that never stops sending."""
        self._abort_in(min(_LINGER_S, max(self._leave_by - self._loop.time(), 0)))

    # ---- clients that have shut down their sending side: they may wait for answers, or be gone ------------------

    def _begin_probing(self) -> None:
        """`_probe` at once and then every second, until the connection is closed."""
        assert self._resets is not None  # every connection has some
        self._descriptor = self.transport.get_extra_info("socket").fileno()
        self._resets.watch(self._descriptor, self.abort)
        self._ask()

    def _ask(self) -> None:
        self._probe()
        self._probing = self._loop.call_later(_PROBE_S, self._ask)

    def _stop_probing(self) -> None:
        if self._probing is not None and self._resets is not None:
            self._probing.cancel()
            self._probing = None
            self._resets.forget(self._descriptor)
