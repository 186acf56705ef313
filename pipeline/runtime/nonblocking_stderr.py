"""Standard error, written to without ever waiting for its reader.

A pipe that is not read must not stop the server: a line for which there is no room is dropped and counted. To get
``EAGAIN`` in place of a wait, a pipe or terminal is opened a second time (``O_NONBLOCK`` belongs to the open file
description, and the inherited one is shared with the parent process); a socket takes ``MSG_DONTWAIT``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Callable

STDERR = 2
_LONGEST_REST = 1 << 16


class NonblockingStderr:
    """Takes whole lines. `dropped` of them found no room since the last one that was written."""

    def __init__(self, fd: int = STDERR) -> None:
        self.dropped = 0
        self._rest = b""  # of a line that was written in part
        self._write, self._close = _writer(fd)

    def write(self, data: bytes) -> bool:
        """False when there was no room, or the reader is gone."""
        if not self._flush():
            self.dropped += 1
            return False
        written = self._try(data)
        self._rest = data[written:][:_LONGEST_REST] if written else b""
        self.dropped = 0 if written else self.dropped + 1
        return bool(written)

    def _flush(self) -> bool:
        self._rest = self._rest[self._try(self._rest) :] if self._rest else b""
        return not self._rest

    def _try(self, data: bytes) -> int:
        try:
            return self._write(data)
        except OSError:  # full, or the reader is gone
            return 0

    def close(self) -> None:
        self._close()


def write_stderr(text: str) -> None:
    """Text for the operator, beside the log: written, or dropped."""
    with contextlib.closing(NonblockingStderr()) as stderr:
        stderr.write(text.encode("utf-8", "replace"))


def _writer(fd: int) -> tuple[Callable[[bytes], int], Callable[[], None]]:
    """A function that writes without waiting, and one that closes. Writes to a file never wait."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:  # closed
        return lambda _: 0, lambda: None
    if stat.S_ISSOCK(mode):
        end = socket.socket(fileno=os.dup(fd))
        return lambda data: end.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL), end.close
    own = _reopened(fd) if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) else -1
    if own < 0:
        return lambda data: os.write(fd, data), lambda: None
    return lambda data: os.write(own, data), lambda: os.close(own)


def _reopened(fd: int) -> int:
    """-1 where that is impossible: a terminal of another user, /proc not mounted."""
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
    try:
        return os.open(f"/proc/self/fd/{fd}", flags)
    except OSError:
        return -1
