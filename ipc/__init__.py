"""Lock-free, zero-copy rings in shared memory: one producer, one or more consumers, across processes.

`SlotRing` has fixed slots (with several consumers it is a lossless broadcast ring), `ByteRing` variable-length
records. Both hand out memory in place; nothing is copied, locked or pickled, and no system call is made while both
sides are busy. The protocol is described in docs/protocol.md and in ipc/core/ring_protocol.h.
"""

from ipc._core import ByteConsumer, ByteProducer, End, ReadSlot, SlotConsumer, SlotProducer, WriteSlot
from ipc.aio import AsyncConsumer, AsyncProducer
from ipc.errors import (
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
from ipc.header import RingGauge, RingSnapshot, RingState, SideSnapshot, read_snapshot
from ipc.layout import Field, Layout
from ipc.ring import ByteRing, RingHandle, SlotRing
from ipc.segment import Segment, sweep_segments
from ipc.select import RingSelector

__all__ = [
    "AsyncConsumer",
    "AsyncProducer",
    "ByteConsumer",
    "ByteProducer",
    "ByteRing",
    "CorruptRingError",
    "End",
    "Field",
    "IpcError",
    "Layout",
    "LayoutMismatchError",
    "NoSpaceError",
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
    "read_snapshot",
    "sweep_segments",
]
