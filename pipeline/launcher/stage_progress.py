"""Which stage has work and makes no progress.

A stage is *due* when one of the rings that drive it holds something, unless it waits for another stage: for room in a
ring that it writes, or for a message that it needs beside the first. Then the fault is with that other stage. A stage
that is due, and none of whose ring indices has changed for too long, hangs. The ranks of a replica work in step: each
is due by itself, and the indices of all are their progress.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from ipc import RingGauge, RingState
from pipeline.wire.rings import RingSet
from pipeline.wire.topology import StageSpec, Topology

Cursor = tuple[str, int]
"""A ring's key, and the index of one of its consumers."""


@dataclass(frozen=True, slots=True)
class StageEnds:
    """What a stage does with the rings of one replica."""

    unit: str
    driven_by: tuple[Cursor, ...]  # a message here is work
    needs: tuple[Cursor, ...]  # read only when another message has arrived
    writes: tuple[str, ...]

    @classmethod
    def of(cls, topology: Topology, stage: StageSpec, replica: int) -> Self:
        reads = [ring for ring in stage.reads if ring.replica == replica]
        cursors = [(ring.flow.is_work, (ring.key, topology.cursor(ring, stage))) for ring in reads]
        return cls(
            stage.unit,
            tuple(cursor for is_work, cursor in cursors if is_work),
            tuple(cursor for is_work, cursor in cursors if not is_work),
            tuple(ring.key for ring in stage.writes if ring.replica == replica),
        )


Positions = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of all rings of a generation at one moment. Stages and units are given by their keys."""

    _ends: Mapping[str, StageEnds]
    _states: Mapping[str, RingState]

    def positions(self, unit: str) -> Positions:
        """Every index that the stages of this unit alone move."""
        return tuple(index for ends in self._ends.values() if ends.unit == unit for index in self._indices(ends))

    def _indices(self, ends: StageEnds) -> Iterable[int]:
        states = self._states
        read = (*ends.driven_by, *ends.needs)
        return (*(states[ring].tails[cursor] for ring, cursor in read), *(states[ring].head for ring in ends.writes))

    def is_due(self, stage: str) -> bool:
        ends, states = self._ends[stage], self._states
        if not any(map(self._holds, ends.driven_by)):
            return False
        full = any(states[ring].producer_waits and states[ring].occupied for ring in ends.writes)
        starved = any(states[ring].consumers_wait[at] and not self._holds((ring, at)) for ring, at in ends.needs)
        return not full and not starved

    @property
    def has_work(self) -> bool:
        return any(self._holds(cursor) for ends in self._ends.values() for cursor in ends.driven_by)

    def _holds(self, cursor: Cursor) -> bool:
        """Something that this consumer has not given back."""
        state = self._states[cursor[0]]
        return state.tails[cursor[1]] != state.head


class RingGauges:
    """Of all rings of a replica's generation. Keeps their memory."""

    def __init__(self, topology: Topology, replica: int, rings: RingSet) -> None:
        self._ends = {stage.key: StageEnds.of(topology, stage, replica) for stage in topology.users(replica)}
        self._gauges = {key: RingGauge(ring.segment.map) for key, ring in rings.rings.items()}

    def snapshot(self) -> Snapshot:
        return Snapshot(self._ends, {key: gauge.read() for key, gauge in self._gauges.items()})


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
