"""A network of this process' own, in which ports of the machine are free: loopback and nothing else."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from typing import Final

from scripts.lab.errors import BenchError

_CLONE_NEWNET: Final = 0x40000000
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1


def leave_network() -> None:
    """Of this thread and what it starts from now on. Raises BenchError."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        raise BenchError(f"no network of its own: {os.strerror(ctypes.get_errno())}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
