"""A stage process, as the launcher sees it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Self

from pipeline.api_keys import without_keys


class StartError(Exception):
    """A stage said why it can't start, or died before it was ready."""


class Child:
    """Started, watched through its pidfd and its status pipe, ended."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], status_fd: int) -> None:
        self.name = name
        self.ready = False
        self._process = process
        self._status_fd = status_fd
        self._pidfd = os.pidfd_open(process.pid)
        self._rest = b""
        self._shown = ""

    @classmethod
    def start(cls, name: str, specification_fd: int, fds: Sequence[int], status_fd: int) -> Self:
        command = [sys.executable, "-m", "pipeline.stage", name, str(specification_fd)]
        environment = without_keys(os.environ)
        process = subprocess.Popen(
            command, pass_fds=[specification_fd, *fds], stdin=subprocess.DEVNULL, env=environment
        )
        os.set_blocking(status_fd, False)
        return cls(name, process, status_fd)

    @property
    def pid(self) -> int:
        return self._process.pid

    def fds(self) -> list[int]:
        """What becomes readable when there is something to look at."""
        return [fd for fd in (self._pidfd, self._status_fd) if fd >= 0]

    def read_status(self) -> None:
        """Show what the stage reports. Raises StartError."""
        for line in self._lines():
            message = json.loads(line)
            if message["event"] == "ready":
                self.ready = True
            elif message["event"] == "failed":
                raise StartError(message["why"])
            else:
                self._show(f"{message['what']} {message['done']} of {message['total']}")
        if not self.ready and (status := self.exit_status()) is not None:
            raise StartError(f"it ended with status {status} before it was ready")

    def _lines(self) -> list[bytes]:
        try:
            chunk = os.read(self._status_fd, 1 << 16) if self._status_fd >= 0 else b""
        except BlockingIOError:
            return []
        if not chunk and self._status_fd >= 0:
            os.close(self._status_fd)
            self._status_fd = -1
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return lines

    def _show(self, text: str) -> None:
        """One line per stage: rewritten on a terminal, printed when the work changes elsewhere."""
        on_terminal = sys.stderr.isatty()
        what = text.rsplit(" ", 3)[0]
        if on_terminal:
            print(f"\r\033[Kringserve: {self.name}: {text}", end="", file=sys.stderr, flush=True)
        elif what != self._shown:
            print(f"ringserve: {self.name}: {text}", file=sys.stderr, flush=True)
        self._shown = what
        done, total = text.rsplit(" ", 3)[1::2]
        if on_terminal and done == total:
            print(file=sys.stderr)

    def exit_status(self) -> int | None:
        return self._process.poll()

    def signal(self, number: signal.Signals) -> None:
        if self.exit_status() is None:
            self._process.send_signal(number)

    def end(self, deadline: float) -> None:
        """Wait until the deadline, then kill; and forget."""
        try:
            self._process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for fd in self.fds():
            os.close(fd)
        self._pidfd = self._status_fd = -1
