"""Clients that have shut down their sending side: which of them still wait for an answer, and which are gone.

Both look alike until something is sent to them, to which the host of one that is gone answers with a reset. The event
loop does not read after an end of data, and would notice a reset only at its next write; epoll reports it even for a
socket that is registered for no event.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable

_PROBE_S = 1.0


class Resets:
    """Made inside a running loop; `close` ends it."""

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


class HalfClosed:
    """One such client, until `stop`: `probe` sends it something at once and then every second. `on_reset` is called
    when it is gone."""

    def __init__(
        self, transport: asyncio.Transport, resets: Resets, probe: Callable[[], None], on_reset: Callable[[], None]
    ) -> None:
        self._descriptor: int = transport.get_extra_info("socket").fileno()
        self._loop, self._resets, self._probe = asyncio.get_running_loop(), resets, probe
        resets.watch(self._descriptor, on_reset)
        self._ask()

    def _ask(self) -> None:
        self._probe()
        self._timer = self._loop.call_later(_PROBE_S, self._ask)

    def stop(self) -> None:
        self._timer.cancel()
        self._resets.forget(self._descriptor)
