"""Refused requests in the log: all of them while they are few, their number when they are many."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

REFUSED = "refused"
"""`extra={REFUSED: True}` marks a line that a client can cause at no cost."""

_LINES_PER_S = 20


@contextmanager
def throttled(log: logging.Logger) -> Iterator[None]:
    """Inside a running loop."""
    throttle = Throttle(asyncio.get_running_loop(), log)
    log.addFilter(throttle)
    try:
        yield
    finally:
        log.removeFilter(throttle)


class Throttle(logging.Filter):
    """Passes so many marked lines per second, and logs the number of the others once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, log: logging.Logger) -> None:
        super().__init__()
        self._loop, self._log = loop, log
        self._second = 0
        self._lines = self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        if not getattr(record, REFUSED, False):
            return True
        if (second := int(self._loop.time())) != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines <= _LINES_PER_S:
            return True
        if not self._left_out:
            self._loop.call_later(1.0, self._summarise)
        self._left_out += 1
        return False

    def _summarise(self) -> None:
        count, self._left_out = self._left_out, 0
        self._log.info("%d more requests were refused within a second", count, extra={"fields": {"refused": count}})
