"""Waiting for several rings at once by their eventfds, without asyncio (for that see ipc/waiting.py)."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Sequence

from ipc import _core

# How long a selector sleeps before it looks at peers. Longer than in the waits in C, which may learn of a close or a
# revocation no sooner; an eventfd always wakes, and an idle process had better sleep.
_SLICE_S = 0.2


class RingSelector:
    """Waits for data on any of some consumers, like a blocking read, but for whichever ring has something first.

    `ends` are pairs of a consumer and its eventfd (`ring.data_fd()`); `wakers` are eventfds by which others, such as
    threads, may end the wait, too. An end's own eventfd may be written before there is data, by somebody who knows
    that there soon will be. A peer that dies is noticed within a fifth of a second.
    """

    def __init__(self, ends: Sequence[tuple[_core.End, int]], wakers: Sequence[int] = ()) -> None:
        self._ends = [end for end, _ in ends]
        self._poll = select.poll()
        for fd in (*(fd for _, fd in ends), *wakers):
            self._poll.register(fd, select.POLLIN)

    def wait(self, timeout: float | None = None) -> bool:
        """True as soon as an end has data or an eventfd is set; False when the timeout is over. Raises RingClosed,
        PeerDied."""
        deadline, woken = None if timeout is None else time.monotonic() + timeout, False
        try:
            while all([end.arm() for end in self._ends]) and not woken:  # noqa: C419 - every end must be armed
                left = _SLICE_S if deadline is None else min(_SLICE_S, deadline - time.monotonic())
                if left <= 0:
                    return False
                if not (woken := self._sleep(left)):
                    for end in self._ends:
                        end.check_peer()
        finally:
            for end in self._ends:
                end.disarm()
        return True

    def _sleep(self, seconds: float) -> bool:
        """Whether an eventfd was set."""
        woken = self._poll.poll(seconds * 1000)
        for fd, _ in woken:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(fd)
        return bool(woken)
