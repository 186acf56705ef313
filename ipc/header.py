"""Reading a ring's header as an outsider: who is attached, how full it is, what its counters say.

Everything comes from `_core.HEADER_FIELDS`, the same lists that the C structs come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ipc import _core

SIDE_COUNTERS = tuple(name for part, name, *_ in _core.HEADER_FIELDS if part == "stats")
"""Names of the counters that each side keeps, in the order in which they lie in its header."""

PID_MASK = (1 << _core.IDENTITY_PID_BITS) - 1
"""Of a process's identity: the bits that are its pid."""

_KINDS = {_core.KIND_SLOTS: "slots", _core.KIND_BYTES: "bytes"}
_ON_DEATH = {_core.DEATH_EVICTS: "evict", _core.DEATH_ENDS: "end"}
_STATES = {0: "free", 1: "attached", 2: "closed"}


@dataclass(frozen=True, slots=True)
class SideSnapshot:
    """One side of a ring at one moment. `index` is head or tail, free-running."""

    role: str
    label: str
    pid: int  # 0: none
    alive: bool
    state: str
    waiting: bool
    index: int
    counters: Mapping[str, int]  # heartbeat, done, wakes, waits, parks, spin_ns, lost_wakes


@dataclass(frozen=True, slots=True)
class RingSnapshot:
    """A ring at one moment. The sides are read one after the other, while they move."""

    name: str
    kind: str
    capacity: int
    slot_size: int
    total_size: int
    creator_pid: int
    layout: str
    revoked: bool
    on_death: str  # of one of several consumers: evict, end
    evicted: tuple[int, ...]  # consumers whose death the producer noticed
    producer: SideSnapshot
    consumers: tuple[SideSnapshot, ...]

    def occupancy(self, consumer: int) -> int:
        """Units published and not yet given back by this consumer; 0 for one that is not waited for."""
        if consumer in self.evicted or self.consumers[consumer].state == "closed":
            return 0
        return max(self.producer.index - self.consumers[consumer].index, 0)


def read_snapshot(memory: Any) -> RingSnapshot:
    """A snapshot of the ring in `memory` (a buffer). Raises CorruptRingError when there is none."""
    kind, capacity, slot_size, consumers, name, text, _ = _core.read_header(memory)
    view = memoryview(memory)
    producer = _Side(view, _core.FIXED_SIZE)
    evicted = producer.number("gate", "evicted")
    sides = [_Side(view, _core.FIXED_SIZE + (1 + i) * _core.SIDE_SIZE) for i in range(consumers)]
    tails = tuple(side.snapshot("consumer") for side in sides)  # before head: occupancy can't come out negative
    return RingSnapshot(
        name=name.decode("utf-8", "replace"),
        kind=_KINDS[kind],
        capacity=capacity,
        slot_size=slot_size,
        total_size=_fixed(view, "total_size"),
        creator_pid=_fixed(view, "creator") & PID_MASK,
        layout=text.decode("utf-8", "replace"),
        revoked=_fixed(view, "state") == _core.REVOKED,
        on_death=_ON_DEATH.get(_fixed(view, "on_death"), "impossible"),
        evicted=tuple(i for i in range(consumers) if evicted >> i & 1),
        producer=producer.snapshot("producer"),
        consumers=tails,
    )


def side_counters(memory: Any, role: Literal["producer", "consumer"], consumer: int = 0) -> memoryview:
    """The counters of one side, live and read-only: 8-byte words, as named by SIDE_COUNTERS."""
    side = 0 if role == "producer" else 1 + consumer
    begin = _core.FIXED_SIZE + side * _core.SIDE_SIZE + _FIELDS["stats", SIDE_COUNTERS[0]][0]
    return memoryview(memory)[begin : begin + 8 * len(SIDE_COUNTERS)].cast("q").toreadonly()


def header_table() -> str:
    """A Markdown table of the header, for docs/protocol.md."""
    rows = [
        f"| {part} | {offset} | `{name}` | `{kind.removeprefix('_Atomic ')}`{_extent(kind, size)} | {meaning} |"
        for part, name, kind, offset, size, meaning in _core.HEADER_FIELDS
    ]
    return "\n".join(["| part | offset | field | type | meaning |", "|---|---|---|---|---|", *rows])


@dataclass(frozen=True, slots=True)
class RingState:
    """Where the sides of a ring are. `waits`: asleep, or about to be, until the other side has done something."""

    head: int
    tails: tuple[int, ...]
    producer_waits: bool
    consumers_wait: tuple[bool, ...]

    @property
    def occupied(self) -> bool:
        """Something is there that not every consumer has given back."""
        return any(tail != self.head for tail in self.tails)


class RingGauge:
    """Reads a ring's state again and again, without a system call. Keeps `memory` (a buffer) alive."""

    def __init__(self, memory: Any) -> None:
        """Raises CorruptRingError."""
        consumers = _core.read_header(memory)[3]
        sides = memoryview(memory)[_core.FIXED_SIZE : _core.FIXED_SIZE + (1 + consumers) * _core.SIDE_SIZE]
        self._long, self._short = sides.cast("Q"), sides.cast("I")
        self._starts = range(0, len(sides), _core.SIDE_SIZE)

    def read(self) -> RingState:
        index = _FIELDS["position", "index"][0]
        tails = [self._long[(start + index) // 8] for start in self._starts[1:]]  # before head, as in a snapshot
        waits = [self._waits(start) for start in self._starts]
        return RingState(self._long[index // 8], tuple(tails), waits[0], tuple(waits[1:]))

    def _waits(self, start: int) -> bool:
        waiting, event = _FIELDS["gate", "waiting"][0], _FIELDS["gate", "event_seq"][0]
        return bool(self._short[(start + waiting) // 4] or self._short[(start + event) // 4] & 1)


class _Side:
    def __init__(self, view: memoryview, base: int) -> None:
        self._view, self._base = view, base

    def number(self, part: str, name: str) -> int:
        return int.from_bytes(self._bytes(part, name), "little")

    def _bytes(self, part: str, name: str) -> bytes:
        offset, size = _FIELDS[part, name]
        return bytes(self._view[self._base + offset : self._base + offset + size])

    def snapshot(self, role: str) -> SideSnapshot:
        owner = self.number("gate", "owner")
        return SideSnapshot(
            role=role,
            label=self._bytes("gate", "label").split(b"\0")[0].decode("utf-8", "replace"),
            pid=owner & PID_MASK,
            alive=bool(owner) and _core.is_alive(owner),
            state=_STATES.get(self.number("gate", "state"), "impossible"),
            waiting=bool(self.number("gate", "waiting") or self.number("gate", "event_seq") & 1),
            index=self.number("position", "index"),
            counters={name: self.number("stats", name) for part, name in _FIELDS if part == "stats"},
        )


_FIELDS = {(part, name): (offset, size) for part, name, _, offset, size, _ in _core.HEADER_FIELDS}


def _fixed(view: memoryview, name: str) -> int:
    offset, size = _FIELDS["fixed", name]
    return int.from_bytes(view[offset : offset + size], "little")


def _extent(kind: str, size: int) -> str:
    unit = {"uint8_t": 1, "char": 1}.get(kind, size)
    return f"[{size // unit}]" if size > unit else ""
