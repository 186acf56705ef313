"""Reports that the server is ready: to the program that started it, by a descriptor; to systemd, by sd_notify(3).

Neither can hold up the server or end it: a reader that is gone is no error.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Self

NOTIFY_SOCKET = "NOTIFY_SOCKET"  # set by systemd for units of Type=notify


class Readiness:
    """`fd`: gets one line of JSON, ``{"api": [url, …], "metrics": [url, …]}``, of a node ``"links": [address, …]``
    with them, and is closed; when the server ends before it is ready, it is closed without a line. `notify_address`:
    of systemd's socket."""

    def __init__(self, fd: int | None = None, notify_address: str | None = None) -> None:
        self._fd, self._address = fd, notify_address
        if fd is not None:
            os.set_inheritable(fd, False)  # a stage that held it would keep it open

    @classmethod
    def from_environment(cls, fd: int | None, environment: Mapping[str, str]) -> Self:
        return cls(fd, environment.get(NOTIFY_SOCKET))

    def ready(self, api: Sequence[str], metrics: Sequence[str], links: Sequence[str] = ()) -> None:
        """Every stage serves. `api` and `metrics`: base URLs; `links`: a node's hosts and ports."""
        if self._fd is not None:
            told = {"api": [*api], "metrics": [*metrics]} | ({"links": [*links]} if links else {})
            with contextlib.suppress(OSError):
                os.write(self._fd, json.dumps(told).encode() + b"\n")
        self.close()
        self._notify("READY=1", f"STATUS=listening on {', '.join([*api, *links])}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._notify(f"STATUS={text}")

    def reloading(self) -> None:
        self._notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        self._notify("READY=1")

    def stopping(self) -> None:
        self._notify("STOPPING=1")

    def close(self) -> None:
        """Twice is harmless."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = None

    def _notify(self, *lines: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), address)
