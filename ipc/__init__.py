"""Lock-free, zero-copy rings in shared memory: one producer, one or more consumers, across processes.

`SlotRing` has fixed slots (with several consumers it is a lossless broadcast ring), `ByteRing` variable-length
records. Both hand out memory in place; nothing is copied, locked or pickled, and no system call is made while both
sides are busy. The protocol is described in docs/protocol.md and in ipc/core/ring_protocol.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipc._core import ByteConsumer, ByteProducer, End, LogWriter, ReadSlot, SlotConsumer, SlotProducer, WriteSlot
from ipc.errors import (
    CorruptLogError,
    CorruptRingError,
    IpcError,
    LayoutMismatchError,
    NoSpaceError,
    PeerDied,
    RingClosed,
    RingTimeout,
    RoleTakenError,
    SegmentError,
    SlotInUseError,
    WakeUpError,
)
from ipc.header import SIDE_COUNTERS, RingGauge, RingSnapshot, RingState, SideSnapshot, read_snapshot
from ipc.layout import Field, Layout
from ipc.limits import MemoryLeft, memory_left, shared_memory_left
from ipc.log import Log, make_log
from ipc.ring import DEFAULT_SPIN_US, ByteRing, OnDeath, RingHandle, SlotRing
from ipc.segment import SHM_DIRECTORY, Backing, Segment, backing_for, sweep_segments
from ipc.selector import RingSelector

if TYPE_CHECKING:
    from ipc.waiting import AsyncConsumer, AsyncProducer

__all__ = [
    "DEFAULT_SPIN_US",
    "SHM_DIRECTORY",
    "SIDE_COUNTERS",
    "AsyncConsumer",
    "AsyncProducer",
    "Backing",
    "ByteConsumer",
    "ByteProducer",
    "ByteRing",
    "CorruptLogError",
    "CorruptRingError",
    "End",
    "Field",
    "IpcError",
    "Layout",
    "LayoutMismatchError",
    "Log",
    "LogWriter",
    "MemoryLeft",
    "NoSpaceError",
    "OnDeath",
    "PeerDied",
    "ReadSlot",
    "RingClosed",
    "RingGauge",
    "RingHandle",
    "RingSelector",
    "RingSnapshot",
    "RingState",
    "RingTimeout",
    "RoleTakenError",
    "Segment",
    "SegmentError",
    "SideSnapshot",
    "SlotConsumer",
    "SlotInUseError",
    "SlotProducer",
    "SlotRing",
    "WakeUpError",
    "WriteSlot",
    "backing_for",
    "make_log",
    "memory_left",
    "read_snapshot",
    "shared_memory_left",
    "sweep_segments",
]


def __getattr__(name: str) -> Any:
    """The stages that have no event loop do without asyncio, which takes long to import."""
    if name not in ("AsyncConsumer", "AsyncProducer"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ipc import waiting

    return getattr(waiting, name)
