"""The rings between the processes: made by the launcher for each generation, taken over by the stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import ipc
from pipeline.config import Configuration
from pipeline.wire.rows import longest_admit
from pipeline.wire.step import Shapes, logits_layout, results_layout, step_layout, tokens_layout

_LEAST_ROW_BYTES = 1 << 20

ENDS = {
    "front": ("requests", "replies", "deltas"),
    "preprocess": ("requests", "replies", "steps", "results", "rows"),
    "inference": ("steps", "tokens", "logits"),
    "sampling": ("logits", "rows", "tokens", "results", "deltas"),
}
"""Which rings a stage has an end of; it maps no others."""

PRODUCERS = {
    "requests": "front",
    "replies": "preprocess",
    "steps": "preprocess",
    "logits": "inference",
    "tokens": "sampling",
    "results": "sampling",
    "rows": "preprocess",
    "deltas": "sampling",
}
"""Who writes into a ring; the other stage that has an end of it reads."""

SLOT_LAYOUTS: dict[str, Callable[[Shapes], ipc.Layout]] = {
    "steps": step_layout,
    "logits": logits_layout,
    "tokens": tokens_layout,
    "results": results_layout,
}


@dataclass(frozen=True, slots=True)
class StageRings:
    """A stage's rings, by what flows through them."""

    slots: Mapping[str, ipc.SlotRing]
    records: Mapping[str, ipc.ByteRing]

    @classmethod
    def take_over(cls, handles: Mapping[str, ipc.RingHandle], shapes: Shapes) -> StageRings:
        """From descriptors that were handed over. Raises LayoutMismatchError, CorruptRingError."""
        return cls(
            slots={
                name: ipc.SlotRing.from_handle(handle, layout=SLOT_LAYOUTS[name](shapes))
                for name, handle in handles.items()
                if name in SLOT_LAYOUTS
            },
            records={
                name: ipc.ByteRing.from_handle(handle) for name, handle in handles.items() if name not in SLOT_LAYOUTS
            },
        )

    def close(self) -> None:
        for ring in (*self.slots.values(), *self.records.values()):
            ring.close()


@dataclass(frozen=True, slots=True)
class Wiring:
    """All rings of a generation, by what flows through them."""

    requests: ipc.ByteRing  # front → preprocess
    replies: ipc.ByteRing  # preprocess → front
    steps: ipc.SlotRing  # preprocess → inference
    logits: ipc.SlotRing  # inference → sampling
    tokens: ipc.SlotRing  # sampling → inference
    results: ipc.SlotRing  # sampling → preprocess
    rows: ipc.ByteRing  # preprocess → sampling
    deltas: ipc.ByteRing  # sampling → front

    @classmethod
    def create(cls, config: Configuration, shapes: Shapes) -> Wiring:
        """Raises NoSpaceError, and leaves nothing behind then."""
        made: dict[str, ipc.SlotRing | ipc.ByteRing] = {}
        backing = ipc.backing_for(*segment_sizes(config, shapes).values())
        try:
            for name, size in ring_sizes(config).items():
                made[name] = _make(name, size, shapes, backing)
            return cls(**made)  # type: ignore[arg-type]
        except BaseException:
            for ring in made.values():
                ring.__exit__()
            raise

    @property
    def rings(self) -> dict[str, ipc.SlotRing | ipc.ByteRing]:
        return {name: getattr(self, name) for name in self.__slots__}

    def handles(self, stage: str) -> dict[str, ipc.RingHandle]:
        """Of the rings that this stage reads or writes."""
        return {name: self.rings[name].handle for name in ENDS[stage]}

    def unlink(self) -> None:
        """Remove the names: rings are handed over by descriptor, and nothing is to be left behind."""
        for ring in self.rings.values():
            ring.segment.unlink()

    def revoke(self) -> None:
        for ring in self.rings.values():
            ring.revoke()

    def close(self) -> None:
        for ring in self.rings.values():
            ring.__exit__()


def ring_sizes(config: Configuration) -> dict[str, int]:
    """Slots of rings of slots, bytes of rings of records; by what flows through them."""
    sizes = config.pipeline.rings
    return {
        "requests": sizes.request_bytes,
        "replies": sizes.reply_bytes,
        "steps": sizes.step_slots,
        "logits": sizes.logits_slots,
        "tokens": sizes.step_slots,
        "results": sizes.step_slots,
        "rows": _row_bytes(config.max_length),
        "deltas": sizes.reply_bytes,
    }


def segment_sizes(config: Configuration, shapes: Shapes) -> dict[str, int]:
    """Bytes of each ring's segment."""
    return {name: _segment_size(name, size, shapes) for name, size in ring_sizes(config).items()}


def _make(name: str, size: int, shapes: Shapes, backing: ipc.Backing | None) -> ipc.SlotRing | ipc.ByteRing:
    if name in SLOT_LAYOUTS:
        return ipc.SlotRing.create(name, slots=size, layout=SLOT_LAYOUTS[name](shapes), backing=backing)
    return ipc.ByteRing.create(name, capacity=size, backing=backing)


def _segment_size(name: str, size: int, shapes: Shapes) -> int:
    if name in SLOT_LAYOUTS:
        return ipc.SlotRing.segment_size(size, SLOT_LAYOUTS[name](shapes))
    return ipc.ByteRing.segment_size(size)


def _row_bytes(max_length: int) -> int:
    """A record takes at most half of a ring; a power of two."""
    return max(_LEAST_ROW_BYTES, 1 << (2 * longest_admit(max_length) - 1).bit_length())
