"""Waiting for descriptors of any number: select.select takes none above 1,023."""

from __future__ import annotations

import select
from collections.abc import Iterable


def readable(fds: Iterable[int], patience_s: float | None = None) -> list[int]:
    """Those that can be read without waiting, or have ended, after at most so many seconds."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(None if patience_s is None else patience_s * 1000)]
