"""Ties a server to the program that started it: when that ends, however it does, the server drains."""

from __future__ import annotations

import os
import signal
import threading

from pipeline.launcher.signals import DRAIN


def tether(fd: int) -> None:
    """A signal to this process to drain, once, as soon as nobody has the other end of this pipe or socket open; what
    is written there says nothing. A parent-death signal would follow the thread that has started this process."""
    os.set_inheritable(fd, False)
    threading.Thread(target=_follow, args=(fd,), name="tether", daemon=True).start()


def _follow(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except OSError:  # a connection was reset
        pass
    caught = signal.getsignal(DRAIN) is not signal.SIG_DFL
    os.kill(os.getpid(), DRAIN if caught else signal.SIGTERM)
