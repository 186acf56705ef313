"""One module per transport. Each is imported only where it is used: a missing package is a note, not an error."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scripts.bench.ipc.spec import PairSpec
    from scripts.bench.ipc.transports.base import Transport

_CLASSES = {
    "ring": ("slot_ring", "SlotRingTransport"),
    "byte-ring": ("byte_ring", "ByteRingTransport"),
    "raw-spin": ("raw_c", "RawSpin"),
    "raw-futex": ("raw_c", "RawFutex"),
    "tcp": ("tcp", "Tcp"),
    "pipe": ("mp_pipe", "MpPipe"),
    "queue": ("mp_queue", "MpQueue"),
    "zeromq": ("zeromq", "ZeroMq"),
    "faster-fifo": ("fifo", "FasterFifo"),
    "iceoryx2": ("iceoryx", "Iceoryx2"),
}
NAMES = tuple(_CLASSES)


def transport_class(name: str) -> type[Transport]:
    """Imports the module, not yet the rival's package: that happens in `prepare` and `attach`."""
    module, attribute = _CLASSES[name]
    found: type[Transport] = getattr(importlib.import_module(f"ipc_bench.transports.{module}"), attribute)
    return found


def make_transport(spec: PairSpec) -> Transport:
    return transport_class(spec.transport)(spec)
