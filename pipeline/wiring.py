"""The rings between the processes: made by the launcher for each generation, taken over by the stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import ipc
from pipeline.config import Configuration
from pipeline.descriptors import Shapes, logits_layout, results_layout, step_layout, tokens_layout

ROW_BYTES = 1 << 20
"""Bytes of the ring that tells sampling who sits where; one request takes at most half of it."""


ENDS = {
    "front": ("requests", "replies", "deltas"),
    "preprocess": ("requests", "replies", "steps", "results", "rows"),
    "inference": ("steps", "tokens", "logits"),
    "sampling": ("logits", "rows", "tokens", "results", "deltas"),
}
"""Which rings a stage has an end of; it maps no others."""

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
        sizes = config.pipeline.rings
        made: list[ipc.SlotRing | ipc.ByteRing] = []

        def slots(name: str, count: int) -> ipc.SlotRing:
            made.append(ring := ipc.SlotRing.create(name, slots=count, layout=SLOT_LAYOUTS[name](shapes)))
            return ring

        def records(name: str, capacity: int) -> ipc.ByteRing:
            made.append(ring := ipc.ByteRing.create(name, capacity=capacity))
            return ring

        try:
            return cls(
                requests=records("requests", sizes.request_bytes),
                replies=records("replies", sizes.reply_bytes),
                steps=slots("steps", sizes.step_slots),
                logits=slots("logits", sizes.logits_slots),
                tokens=slots("tokens", sizes.step_slots),
                results=slots("results", sizes.step_slots),
                rows=records("rows", max(ROW_BYTES, 1 << (16 * shapes.max_rows).bit_length())),
                deltas=records("deltas", sizes.reply_bytes),
            )
        except BaseException:
            for ring in made:
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
