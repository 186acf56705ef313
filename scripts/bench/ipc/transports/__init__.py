"""What is compared. Modules, and packages of rivals, are imported only where they are used: a missing package is a
note, not an error."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scripts.bench.ipc.transports.base import PairSpec, Transport

_CLASSES = {
    "ring": "rings.SlotRingTransport",
    "byte-ring": "rings.ByteRingTransport",
    "raw-spin": "rings.RawSpin",
    "raw-futex": "rings.RawFutex",
    "tcp": "builtin.Tcp",
    "pipe": "builtin.MpPipe",
    "queue": "builtin.MpQueue",
    "zeromq": "rivals.ZeroMq",
    "faster-fifo": "rivals.FasterFifo",
    "iceoryx2": "rivals.Iceoryx2",
    "subetha": "rivals.Subetha",
}
NAMES = tuple(_CLASSES)


def transport_class(name: str) -> type[Transport]:
    """Imports the module, not yet the rival's package: that happens in `prepare` and `attach`."""
    module, attribute = _CLASSES[name].split(".")
    found: type[Transport] = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
    return found


def make_transport(spec: PairSpec) -> Transport:
    return transport_class(spec.transport)(spec)
