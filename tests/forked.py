"""Processes forked from one that has imported all that they need: to start Python and import takes longer than what
most tests want of a process. What they run, and what they are given, is as in one that was started.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import DupFd
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_PRELOADED: list[str] = []


def preload(*modules: str) -> None:
    """To be imported before the first of them is forked."""
    _PRELOADED.extend(modules)
    _CONTEXT.set_forkserver_preload(_PRELOADED)


class Forked:
    """Runs the module's `main` with these arguments, and descriptors of the same numbers as here. To be used as a
    subprocess.Popen of text with three pipes."""

    def __init__(self, module: str, arguments: Sequence[str], fds: Sequence[int]) -> None:
        (read, to_it), (from_it, out), (errors, err) = (os.pipe() for _ in range(3))
        theirs = (read, out, err)
        given = dict(enumerate(theirs)) | {fd: fd for fd in fds}
        self._process = _CONTEXT.Process(target=_run, args=(module, tuple(arguments), _Given(given)), daemon=True)
        self._process.start()
        for fd in theirs:
            os.close(fd)
        self.stdin, self.stdout, self.stderr = os.fdopen(to_it, "w"), os.fdopen(from_it), os.fdopen(errors)
        self.pid = int(self._process.pid or 0)

    def poll(self) -> int | None:
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it still says. Raises TimeoutExpired."""
        self.stdin.close()
        with ThreadPoolExecutor(2) as pool:
            said = [pool.submit(stream.read) for stream in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            return said[0].result(), said[1].result()

    def wait(self, timeout: float | None = None) -> int:
        """Raises TimeoutExpired."""
        self._process.join(timeout)
        if (status := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # its parent has taken note of its end, and we have not
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Given:
    """Descriptors for the child, by the number that each is to have there."""

    def __init__(self, given: dict[int, int]) -> None:
        self._given: dict[int, Any] = dict(given)

    def __getstate__(self) -> dict[int, Any]:
        return {number: DupFd(fd) for number, fd in self._given.items()}

    def __setstate__(self, state: dict[int, Any]) -> None:
        self._given = state

    def put(self) -> None:
        """Each in its place. First all out of the way: they come in any numbers."""
        above = max(self._given) + 1
        aside = {}
        for number, received in self._given.items():
            fd = received.detach()
            aside[number] = fcntl.fcntl(fd, fcntl.F_DUPFD, above)
            os.close(fd)
        for number, fd in aside.items():
            os.dup2(fd, number)
            os.close(fd)


def _run(module: str, arguments: tuple[str, ...], given: _Given) -> None:
    given.put()
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    sys.argv = [module, *arguments]
    warnings.simplefilter("error")  # as python -W error
    importlib.import_module(module).main()
