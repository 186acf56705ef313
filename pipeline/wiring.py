"""The rings between the processes: made by the launcher, taken over by the stages."""

from __future__ import annotations

from dataclasses import dataclass

import ipc
from pipeline.config import Configuration
from pipeline.descriptors import Shapes, logits_layout, results_layout, step_layout, tokens_layout

ROW_BYTES = 1 << 20
"""Bytes of the ring that tells sampling who sits where; one request takes at most half of it."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """All rings of a server, by what flows through them."""

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

        def slots(name: str, count: int, layout: ipc.Layout) -> ipc.SlotRing:
            made.append(ring := ipc.SlotRing.create(name, slots=count, layout=layout))
            return ring

        def records(name: str, capacity: int) -> ipc.ByteRing:
            made.append(ring := ipc.ByteRing.create(name, capacity=capacity))
            return ring

        try:
            return cls(
                requests=records("requests", sizes.request_bytes),
                replies=records("replies", sizes.reply_bytes),
                steps=slots("steps", sizes.step_slots, step_layout(shapes)),
                logits=slots("logits", sizes.logits_slots, logits_layout(shapes)),
                tokens=slots("tokens", sizes.step_slots, tokens_layout(shapes)),
                results=slots("results", sizes.step_slots, results_layout(shapes)),
                rows=records("rows", max(ROW_BYTES, 1 << (16 * shapes.max_rows).bit_length())),
                deltas=records("deltas", sizes.reply_bytes),
            )
        except BaseException:
            for ring in made:
                ring.__exit__()
            raise

    @classmethod
    def from_texts(cls, texts: dict[str, str], shapes: Shapes) -> Wiring:
        """In a stage: takes over the descriptors it has inherited. Raises LayoutMismatchError, CorruptRingError."""
        layouts = {
            "steps": step_layout(shapes),
            "logits": logits_layout(shapes),
            "tokens": tokens_layout(shapes),
            "results": results_layout(shapes),
        }
        handles = {name: ipc.RingHandle.from_text(text) for name, text in texts.items()}
        slots = {name: ipc.SlotRing.from_handle(handles[name], layout=layouts[name]) for name in layouts}
        records = {name: ipc.ByteRing.from_handle(handle) for name, handle in handles.items() if name not in layouts}
        return cls(**slots, **records)

    @property
    def rings(self) -> dict[str, ipc.SlotRing | ipc.ByteRing]:
        return {name: getattr(self, name) for name in self.__slots__}

    def texts(self) -> dict[str, str]:
        return {name: ring.handle.to_text() for name, ring in self.rings.items()}

    def fds(self) -> list[int]:
        return [fd for ring in self.rings.values() for fd in ring.handle.fds]

    def unlink(self) -> None:
        for ring in self.rings.values():
            ring.segment.unlink()

    def close(self) -> None:
        for ring in self.rings.values():
            ring.__exit__()
