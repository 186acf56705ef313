"""Rings: made by one process, handed to others by descriptor, attached to as producer or consumer.

::

    ring = SlotRing.create("steps", slots=4, layout=STEP)
    subprocess.Popen([..., ring.handle.to_text()], pass_fds=ring.handle.fds)
    producer = ring.producer(label="preprocess")

    # in the child
    ring = SlotRing.from_handle(RingHandle.from_text(sys.argv[1]), layout=STEP)
    consumer = ring.consumer(label="inference")
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing import reduction
from typing import Any, ClassVar, Literal, Self

from ipc import _core
from ipc.errors import CorruptRingError, LayoutMismatchError, RingTimeout
from ipc.header import RingSnapshot, read_snapshot, side_counters
from ipc.layout import ALIGNMENT, Layout
from ipc.segment import Backing, Segment

_KINDS = "SlotRing and ByteRing can't be taken for each other"
_LARGEST = 1 << 48  # bytes of one ring

OnDeath = Literal["evict", "end"]
"""What the death of one of several consumers does: it is evicted, and the others go on; or the ring ends for all."""

_ON_DEATH = {"evict": _core.DEATH_EVICTS, "end": _core.DEATH_ENDS}

DEFAULT_SPIN_US = 100.0
"""Microseconds a wait may spin before it sleeps; what it really spins adapts below that."""


@dataclass(frozen=True, slots=True)
class RingHandle:
    """The descriptors that another process needs to attach: the segment, one eventfd per consumer for data, one
    for the producer for space. Survives pickling to a child that multiprocessing *spawns*; for `subprocess`, pass
    `fds` as `pass_fds` and `to_text()` as an argument."""

    segment_fd: int
    space_fd: int
    data_fds: tuple[int, ...]

    @property
    def fds(self) -> tuple[int, ...]:
        return (self.segment_fd, self.space_fd, *self.data_fds)

    def to_text(self) -> str:
        return ",".join(map(str, self.fds))

    @classmethod
    def from_text(cls, text: str) -> RingHandle:
        """Raises ValueError for anything that `to_text` did not write."""
        fds = [int(part) for part in text.split(",")]
        if len(fds) < 3 or min(fds) < 0:
            raise ValueError(f"ring handle {text!r}: three or more descriptors, separated by commas, expected")
        return cls(fds[0], fds[1], tuple(fds[2:]))

    def __reduce__(self) -> Any:
        return _rebuild_handle, tuple(reduction.DupFd(fd) for fd in self.fds)


def _rebuild_handle(*fds: Any) -> RingHandle:
    segment_fd, space_fd, *data_fds = (fd.detach() for fd in fds)
    return RingHandle(segment_fd, space_fd, tuple(data_fds))


class _Ring:
    """What rings of slots and of bytes have in common. Owns the segment's descriptor and the eventfds."""

    KIND: ClassVar[int]

    def __init__(self, segment: Segment, events: tuple[int, ...]) -> None:
        self.segment = segment
        self._events = events  # space, then data per consumer; empty where attached by name
        try:
            self._read_header()
        except BaseException:
            self.close()
            raise

    def _read_header(self) -> None:
        kind, self.capacity, self.slot_size, self.consumers, name, self._text, self._hash = _core.read_header(
            self.segment.map
        )
        self.name: str = name.decode("utf-8", "replace")
        if kind != self.KIND:
            raise CorruptRingError(f"ring '{self.name}' is of the other kind: {_KINDS}")
        if self._events and len(self._events) != 1 + self.consumers:
            raise ValueError(f"ring '{self.name}': {len(self._events)} eventfds for {self.consumers} consumers")

    @classmethod
    def _create(
        cls,
        name: str,
        capacity: int,
        slot_size: int,
        consumers: int,
        on_death: OnDeath,
        backing: Backing | None,
        text: bytes,
    ) -> Self:
        if not 1 <= consumers <= _core.MAX_CONSUMERS:
            raise ValueError(f"ring {name!r}: 1 to {_core.MAX_CONSUMERS} consumers expected, not {consumers}")
        if on_death not in _ON_DEATH:
            raise ValueError(f"ring {name!r}: on_death is {on_death!r}, 'evict' or 'end' expected")
        if capacity < 1 or capacity > _core.MAX_CAPACITY or capacity & (capacity - 1):
            raise ValueError(f"ring {name!r}: a capacity that is a power of two up to 2^31 expected, not {capacity}")
        if slot_size * capacity > _LARGEST:
            raise ValueError(f"ring {name!r}: {capacity} slots of {slot_size} bytes are more than 2^48 bytes")
        if len(text) > _core.MAX_LAYOUT_TEXT:
            raise ValueError(
                f"ring {name!r}: its layout takes {len(text)} bytes to describe, at most 65536 are allowed"
            )
        segment = Segment.create(name, _core.total_size(capacity, slot_size, consumers, len(text)), backing)
        try:
            digest = hashlib.sha256(text).digest()[:16]
            death = _ON_DEATH[on_death]
            _core.format_ring(segment.map, cls.KIND, capacity, slot_size, consumers, death, name, text, digest)
            return cls(segment, _make_events(1 + consumers))
        except BaseException:
            segment.unlink()
            segment.close()
            raise

    @classmethod
    def _from_handle(cls, handle: RingHandle) -> Self:
        events = handle.fds[1:]
        try:
            segment = Segment.from_fd(handle.segment_fd)
        except BaseException:
            _close(events)
            raise
        return cls(segment, events)

    def check_layout(self, layout: Layout) -> None:
        """Raises LayoutMismatchError, which shows both layouts, when the ring was made with another one."""
        if self._hash != layout.hash:
            theirs = self._text.decode("utf-8", "replace").rstrip() or "(no layout)"
            raise LayoutMismatchError(
                f"ring '{self.name}' was made with another layout.\n"
                f"in the ring:\n{theirs}\nhere:\n{layout.text.rstrip()}"
            )

    @property
    def handle(self) -> RingHandle:
        """For a process that is to attach. Raises ValueError where this ring was attached by name."""
        if not self._events:
            raise ValueError(f"ring '{self.name}' was attached by name: it has no eventfds to hand on")
        return RingHandle(self.segment.fd, self._events[0], self._events[1:])

    def data_fd(self, consumer: int = 0) -> int:
        """The eventfd that wakes this consumer; -1 where the ring was attached by name."""
        return self._events[1 + consumer] if self._events else -1

    @property
    def space_fd(self) -> int:
        """The eventfd that wakes the producer; -1 where the ring was attached by name."""
        return self._events[0] if self._events else -1

    def snapshot(self) -> RingSnapshot:
        return read_snapshot(self.segment.map)

    def counters(self, role: Literal["producer", "consumer"], consumer: int = 0) -> memoryview:
        """What one side counts, live; see `SIDE_COUNTERS`. It keeps the mapping, as ends do."""
        return side_counters(self.segment.map, role, consumer)

    def wait_attached(self, timeout: float | None = None) -> None:
        """Wait until every role was taken. Raises RingTimeout naming those that were not."""
        if not _core.wait_attached(self.segment.map, timeout):
            now = self.snapshot()
            sides = {"producer": now.producer, **{f"consumer {i}": side for i, side in enumerate(now.consumers)}}
            missing = ", ".join(role for role, side in sides.items() if side.state == "free")
            raise RingTimeout(f"ring '{self.name}': no process attached as {missing}")

    def unlink_when_attached(self, timeout: float | None = None) -> None:
        """Remove the segment's name as soon as all roles are taken, so that nothing is left behind whatever dies.
        It is removed, too, when not all were taken in time; then RingTimeout is raised."""
        try:
            self.wait_attached(timeout)
        finally:
            self.segment.unlink()

    def revoke(self) -> None:
        """End the ring for both sides, for ever. Processes that wait are woken and see RingClosed, and so do those
        that attach later; a consumer first reads what was published, a producer sees it when it next needs room. For
        the creator of the ring, which is not one of its ends."""
        _core.revoke(self.segment.map)
        for fd in self._events:
            with contextlib.suppress(BlockingIOError):  # it can't be more readable than it is
                os.eventfd_write(fd, 1)

    def close(self) -> None:
        """Close the descriptors and unmap. Ends and views that are alive keep what they need."""
        self.segment.close()
        events, self._events = self._events, ()
        _close(events)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.segment.unlink()
        self.close()

    def _producer_options(self, label: str, spin_us: float | None) -> dict[str, Any]:
        return {"label": label, "spin_us": _spin(spin_us), "event_fds": self._events[1:]}

    def _consumer_options(self, consumer: int, label: str, spin_us: float | None) -> dict[str, Any]:
        if not 0 <= consumer < self.consumers:
            raise ValueError(f"ring '{self.name}' has consumers 0 to {self.consumers - 1}, not {consumer}")
        return {"consumer": consumer, "label": label, "spin_us": _spin(spin_us), "event_fds": self._events[:1]}


class SlotRing(_Ring):
    """A ring of fixed slots. With several consumers it is a lossless broadcast ring: each sees every slot, the
    producer waits for the slowest, and one that died is evicted, or ends the ring."""

    KIND = _core.KIND_SLOTS

    @classmethod
    def create(
        cls,
        name: str,
        *,
        slots: int,
        layout: Layout | None = None,
        slot_size: int | None = None,
        consumers: int = 1,
        on_death: OnDeath = "evict",
        backing: Backing | None = None,
    ) -> SlotRing:
        """`slots` is a power of two. `slot_size`, in bytes, is rounded up to a multiple of 64; it comes from the
        layout where there is one. `on_death` of one of several consumers. `backing` as in `Segment.create`. Raises
        NoSpaceError, ValueError."""
        size = layout.size if layout else slot_size
        if size is None or size < 1 or (layout and slot_size is not None):
            raise ValueError(f"ring {name!r}: either a layout or a slot_size of at least 1 byte expected")
        size = -(-size // ALIGNMENT) * ALIGNMENT
        text = layout.text.encode() if layout else b""
        return cls._create(name, slots, size, consumers, on_death, backing, text)

    @staticmethod
    def segment_size(slots: int, layout: Layout, *, consumers: int = 1) -> int:
        """Bytes of the segment that `create` would make."""
        return _core.total_size(slots, layout.size, consumers, len(layout.text.encode()))

    @classmethod
    def from_handle(cls, handle: RingHandle, *, layout: Layout | None = None) -> SlotRing:
        """Takes over the handle's descriptors, which must be this process's own: those it inherited, once. Raises
        SegmentError, CorruptRingError, LayoutMismatchError; the descriptors are closed then."""
        return cls._checked(cls._from_handle(handle), layout)

    @classmethod
    def attach(cls, name: str, *, layout: Layout | None = None) -> SlotRing:
        """By name, for tools. Raises SegmentError, CorruptRingError, LayoutMismatchError."""
        return cls._checked(cls(Segment.attach(name), ()), layout)

    @classmethod
    def _checked(cls, ring: SlotRing, layout: Layout | None) -> SlotRing:
        if layout:
            try:
                ring.check_layout(layout)
            except LayoutMismatchError:
                ring.close()
                raise
        return ring

    def producer(self, *, label: str = "", spin_us: float | None = None) -> _core.SlotProducer:
        """Become the producer. `label` says who that is, for messages. Raises RoleTakenError, CorruptRingError."""
        return _core.SlotProducer(self.segment.map, **self._producer_options(label, spin_us))

    def consumer(
        self, consumer: int = 0, *, label: str = "", spin_us: float | None = None, writable: bool = False
    ) -> _core.SlotConsumer:
        """Become a consumer. `writable` lets the sole consumer of a ring write into slots it holds."""
        options = self._consumer_options(consumer, label, spin_us)
        return _core.SlotConsumer(self.segment.map, writable=writable, **options)


class ByteRing(_Ring):
    """A ring of variable-length records, each up to half of the capacity."""

    KIND = _core.KIND_BYTES

    @classmethod
    def create(
        cls,
        name: str,
        *,
        capacity: int,
        consumers: int = 1,
        on_death: OnDeath = "evict",
        backing: Backing | None = None,
    ) -> ByteRing:
        """`capacity` in bytes, a power of two of at least 64; otherwise as `SlotRing.create`. Raises NoSpaceError,
        ValueError."""
        if capacity < 64:
            raise ValueError(f"ring {name!r}: a capacity of at least 64 bytes expected, not {capacity}")
        return cls._create(name, capacity, 1, consumers, on_death, backing, b"")

    @staticmethod
    def segment_size(capacity: int, *, consumers: int = 1) -> int:
        """Bytes of the segment that `create` would make."""
        return _core.total_size(capacity, 1, consumers, 0)

    @classmethod
    def from_handle(cls, handle: RingHandle) -> ByteRing:
        """Takes over the handle's descriptors, as `SlotRing.from_handle`. Raises SegmentError, CorruptRingError."""
        return cls._from_handle(handle)

    @classmethod
    def attach(cls, name: str) -> ByteRing:
        """By name, for tools. Raises SegmentError, CorruptRingError."""
        return cls(Segment.attach(name), ())

    def producer(self, *, label: str = "", spin_us: float | None = None) -> _core.ByteProducer:
        """Become the producer. Raises RoleTakenError, CorruptRingError."""
        return _core.ByteProducer(self.segment.map, **self._producer_options(label, spin_us))

    def consumer(self, consumer: int = 0, *, label: str = "", spin_us: float | None = None) -> _core.ByteConsumer:
        """Become a consumer. Raises RoleTakenError, CorruptRingError."""
        return _core.ByteConsumer(self.segment.map, **self._consumer_options(consumer, label, spin_us))


def _make_events(count: int) -> tuple[int, ...]:
    events: list[int] = []
    try:
        for _ in range(count):
            events.append(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
    except OSError:
        _close(events)
        raise
    return tuple(events)


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def _spin(spin_us: float | None) -> float:
    """With a single CPU the peer can't run while this process spins. A process that is pinned to one CPU may well
    have a peer on another."""
    default = DEFAULT_SPIN_US if (os.cpu_count() or 1) > 1 else 0.0
    return default if spin_us is None else spin_us
