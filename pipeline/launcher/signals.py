"""Signals to the launcher: counted, with a descriptor that becomes readable when one has arrived."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

DRAIN = signal.SIGUSR2
"""As SIGTERM, but no reason to hurry where it drains already."""

_CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, DRAIN)


class Signals:
    """`fileno` is readable after each signal, so that a wait can't miss one."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.ends = 0  # SIGINT and SIGTERM so far; a DRAIN is one if it is the first
        self.reload = False  # SIGHUP came; for the reader to take back

    def fileno(self) -> int:
        return self._fd

    def clear(self) -> None:
        """Nothing is readable until the next signal."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 4096)

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.reload = True
        elif number == DRAIN:
            self.ends = max(self.ends, 1)
        else:
            self.ends += 1


@contextlib.contextmanager
def caught_signals() -> Iterator[Signals]:
    """While it lasts, SIGINT, SIGTERM, SIGHUP and DRAIN do nothing but count."""
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signals = Signals(read)
    wake = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    before = {number: signal.signal(number, signals.on_signal) for number in _CAUGHT}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wake)
        os.close(read)
        os.close(write)
