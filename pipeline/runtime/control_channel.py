"""The control channel between the launcher and a stage: JSON messages, with descriptors beside them.

A stage sends: progress (while it loads), waiting (it has no rings and needs some), ready (it serves in a generation),
failed. The launcher sends: generation (rings to attach to), reload, drain. Nothing of it is on the step path. The
launcher never blocks on a channel, whatever the stage at its other end does.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_MAX_BYTES = 1 << 18  # a reload brings up to 1024 API keys
_MAX_FDS = 253  # as many as one message can carry on Linux
_FD_BYTES = array.array("i").itemsize


class ChannelError(Exception):
    """The other end is gone, does not read, or sends what can't be parsed."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message; the receiver owns its descriptors."""

    event: str
    fields: Mapping[str, Any]
    fds: tuple[int, ...] = ()

    def close(self) -> None:
        """Close the descriptors of a message that is not used."""
        for fd in self.fds:
            os.close(fd)


class Channel:
    """One end of a channel. Messages keep their boundaries, and arrive whole or not at all."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """The launcher's end, which never blocks, and the socket whose descriptor the stage inherits."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        return cls(ours), theirs

    @classmethod
    def inherited(cls, fd: int) -> Channel:
        """The stage's end."""
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, event: str, fds: Sequence[int] = (), **fields: Any) -> None:
        """Raises ChannelError when the other end is gone, or has not read what was sent before."""
        try:
            socket.send_fds(self._socket, [json.dumps({"event": event, **fields}).encode()], fds)
        except OSError as error:
            raise ChannelError(f"{event} could not be sent: {error.strerror}") from error

    def receive(self) -> Message | None:
        """The next message; None if there is none now. Raises ChannelError at the end."""
        flags = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT  # socket.recv_fds (3.11) passes none on
        try:
            content, extra, seen, _ = self._socket.recvmsg(_MAX_BYTES, socket.CMSG_LEN(_MAX_FDS * _FD_BYTES), flags)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ChannelError(f"nothing can be received: {error.strerror}") from error
        return _parse(content, _descriptors(extra), seen)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()


def _descriptors(extra: Sequence[tuple[int, int, bytes]]) -> tuple[int, ...]:
    fds = array.array("i")
    for level, kind, data in extra:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return tuple(fds)


def _parse(content: bytes, fds: tuple[int, ...], seen: int) -> Message:
    if not content:
        raise ChannelError("the other end is closed")
    if seen & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
        for fd in fds:
            os.close(fd)
        raise ChannelError("a message was cut off: too large, or no descriptors are left")
    fields = json.loads(content)
    return Message(fields.pop("event"), fields, fds)
