"""Who has work and does not get on.

A stage is *due* when one of the rings that drive it holds something, unless it waits for somebody else: for room in a
ring that it writes, or for a message that it needs beside the first. Then the fault lies further along. A stage that
is due, and of whose rings no index of its own has changed for too long, hangs.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from ipc import RingGauge, RingState
from pipeline.wire.rings import Wiring


@dataclass(frozen=True, slots=True)
class Part:
    """What a stage does with rings."""

    driven_by: tuple[str, ...]  # what comes in here must be worked off
    writes: tuple[str, ...]
    needs: tuple[str, ...] = ()  # read only when something else has come


PARTS = {
    "front": Part(("replies", "deltas"), ("requests",)),
    "preprocess": Part(("requests", "results"), ("replies", "rows", "steps")),
    "inference": Part(("steps",), ("logits",), ("tokens",)),
    "sampling": Part(("logits",), ("tokens", "results", "deltas"), ("rows",)),
}

Positions = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """All rings of a generation at one moment."""

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


class Gauges:
    """Of all rings of a generation. Keeps their memory."""

    def __init__(self, wiring: Wiring) -> None:
        self._gauges = {name: RingGauge(ring.segment.map) for name, ring in wiring.rings.items()}

    def look(self) -> Look:
        return Look({name: gauge.read() for name, gauge in self._gauges.items()})


class Patience:
    """For how long each has shown the same, in time during which somebody looked.

    Time between two looks counts up to a limit: if whoever looks was stopped, so perhaps was everybody else.
    """

    def __init__(self) -> None:
        self._seen: dict[Hashable, Hashable] = {}
        self._still_s: dict[Hashable, float] = {}

    def still_s(self, who: Hashable, evidence: Hashable, elapsed_s: float) -> float:
        """`evidence` is what should change; None: nothing is expected of it."""
        if evidence is None or self._seen.get(who) != evidence:
            self._seen[who] = evidence
            self._still_s[who] = 0.0
        else:
            self._still_s[who] += elapsed_s
        return self._still_s[who]

    def forget(self, first: Hashable) -> None:
        """Everybody whose name is a tuple that begins so."""
        for who in [who for who in self._seen if isinstance(who, tuple) and who[0] == first]:
            del self._seen[who], self._still_s[who]
