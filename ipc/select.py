"""Waiting for several rings at once, without asyncio.

Like a blocking read, but for whichever ring has something first: every end is armed, looks once more, and the process
sleeps in `poll` on their eventfds. A peer that dies is noticed within a fifth of a second.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Sequence

from ipc import _core

# How long before peers are looked at. Longer than in the waits in C, which may learn of a close or a revocation no
# sooner; an eventfd always wakes, and an idle process had better sleep.
_SLICE_S = 0.2


class RingSelector:
    """Waits for data on any of some consumers. `ends` are pairs of a consumer and its eventfd (`ring.data_fd()`);
    `wakers` are eventfds by which others, such as threads, may end the wait, too."""

    def __init__(self, ends: Sequence[tuple[_core.End, int]], wakers: Sequence[int] = ()) -> None:
        self._ends = [end for end, _ in ends]
        self._wakers = frozenset(wakers)
        self._poll = select.poll()
        for fd in (*(fd for _, fd in ends), *wakers):
            self._poll.register(fd, select.POLLIN)

    def wait(self, timeout: float | None = None) -> bool:
        """True as soon as an end has data or a waker is set; False when the timeout is over. Raises RingClosed,
        PeerDied."""
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while all([end.arm() for end in self._ends]):  # noqa: C419 - every end must be armed
                left = _SLICE_S if deadline is None else min(_SLICE_S, deadline - time.monotonic())
                if left <= 0:
                    return False
                woken = self._sleep(left)
                if not self._wakers.isdisjoint(woken):
                    break
                if not woken:
                    for end in self._ends:
                        end.check_peer()
        finally:
            for end in self._ends:
                end.disarm()
        return True

    def _sleep(self, seconds: float) -> list[int]:
        """The eventfds that were set."""
        woken = [fd for fd, _ in self._poll.poll(seconds * 1000)]
        for fd in woken:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(fd)
        return woken
