"""Which stage has work and makes no progress.

A stage is *due* when one of the rings that drive it holds something, unless it waits for another stage: for room in a
ring that it writes, or for a message that it needs beside the first. Then the fault is with that other stage. A stage
that is due, and none of whose ring indices has changed for too long, hangs.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from ipc import RingGauge, RingState
from pipeline.wire.rings import Wiring


@dataclass(frozen=True, slots=True)
class Part:
    """What a stage does with rings."""

    driven_by: tuple[str, ...]  # a message here is work
    writes: tuple[str, ...]
    needs: tuple[str, ...] = ()  # read only when another message has arrived


PARTS = {
    "front": Part(("replies", "deltas"), ("requests",)),
    "preprocess": Part(("requests", "results"), ("replies", "rows", "steps")),
    "inference": Part(("steps",), ("logits",), ("tokens",)),
    "sampling": Part(("logits",), ("tokens", "results", "deltas"), ("rows",)),
}

Positions = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of all rings of a generation at one moment."""

    _states: Mapping[str, RingState]

    def positions(self, stage: str) -> Positions:
        """Every index that this stage alone moves."""
        part, states = PARTS[stage], self._states
        read = (*part.driven_by, *part.needs)
        return (*(states[ring].tails[0] for ring in read), *(states[ring].head for ring in part.writes))

    def is_due(self, stage: str) -> bool:
        part, states = PARTS[stage], self._states
        if not self._is_driven(stage):
            return False
        full = any(states[ring].producer_waits and states[ring].occupied for ring in part.writes)
        starved = any(states[ring].consumers_wait[0] and not states[ring].occupied for ring in part.needs)
        return not full and not starved

    @property
    def has_work(self) -> bool:
        return any(map(self._is_driven, PARTS))

    def _is_driven(self, stage: str) -> bool:
        return any(self._states[ring].occupied for ring in PARTS[stage].driven_by)


class RingGauges:
    """Of all rings of a generation. Keeps their memory."""

    def __init__(self, wiring: Wiring) -> None:
        self._gauges = {name: RingGauge(ring.segment.map) for name, ring in wiring.rings.items()}

    def snapshot(self) -> Snapshot:
        return Snapshot({name: gauge.read() for name, gauge in self._gauges.items()})


class StallTimer:
    """For how long the evidence under each key has not changed, in time that was sampled.

    The caller limits the time between two samples: if it was stopped itself, so perhaps were the others.
    """

    def __init__(self) -> None:
        self._seen: dict[Hashable, Hashable] = {}
        self._stalled_s: dict[Hashable, float] = {}

    def stalled_s(self, key: Hashable, evidence: Hashable, elapsed_s: float) -> float:
        """`evidence` is what should change; None: no change is expected."""
        if evidence is None or self._seen.get(key) != evidence:
            self._seen[key] = evidence
            self._stalled_s[key] = 0.0
        else:
            self._stalled_s[key] += elapsed_s
        return self._stalled_s[key]

    def forget(self, first: Hashable) -> None:
        """Every key that is a tuple that begins with this."""
        for key in [key for key in self._seen if isinstance(key, tuple) and key[0] == first]:
            del self._seen[key], self._stalled_s[key]
