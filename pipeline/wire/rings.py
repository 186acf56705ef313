"""The rings between the processes: made by the launcher for each generation, taken over by the stages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import ipc
from pipeline.config import Configuration
from pipeline.wire.step import Shapes
from pipeline.wire.topology import RingSpec, StageSpec, Topology

Ring = ipc.SlotRing | ipc.ByteRing


@dataclass(frozen=True, slots=True)
class StageRings:
    """A stage's rings of one replica. `slots` and `records` stay within the replica, by what flows through them;
    `lanes` are those to and from each front, likewise. `every` has all of them, by their keys."""

    slots: Mapping[str, ipc.SlotRing]
    records: Mapping[str, ipc.ByteRing]
    lanes: Mapping[int, Mapping[str, ipc.ByteRing]]
    every: Mapping[str, Ring]

    @classmethod
    def take_over(cls, stage: StageSpec, handles: Mapping[str, ipc.RingHandle], shapes: Shapes) -> StageRings:
        """From descriptors that were handed over. Raises LayoutMismatchError, CorruptRingError."""
        slots: dict[str, ipc.SlotRing] = {}
        records: dict[str, ipc.ByteRing] = {}
        lanes: defaultdict[int, dict[str, ipc.ByteRing]] = defaultdict(dict)
        every: dict[str, Ring] = {}
        for spec in (ring for ring in stage.rings if ring.key in handles):
            handle, name = handles[spec.key], spec.flow.name
            if spec.flow.layout is not None:
                every[spec.key] = slots[name] = ipc.SlotRing.from_handle(handle, layout=spec.flow.layout(shapes))
            else:
                by_name = records if spec.front is None else lanes[spec.front]
                every[spec.key] = by_name[name] = ipc.ByteRing.from_handle(handle)
        return cls(slots, records, lanes, every)

    def close(self) -> None:
        for ring in self.every.values():
            ring.close()


class RingSet:
    """All rings of a replica's generation, by their keys."""

    def __init__(self, rings: Mapping[str, Ring]) -> None:
        self.rings = rings

    @classmethod
    def create(cls, topology: Topology, replica: int, config: Configuration, shapes: Shapes) -> Self:
        """Raises NoSpaceError, and leaves nothing behind then."""
        made: dict[str, Ring] = {}
        sizes = segment_sizes(topology, config, shapes)
        backing = ipc.backing_for(*(sizes[spec.key] for spec in _of_replica(topology, replica)))
        try:
            for spec in _of_replica(topology, replica):
                made[spec.key] = _make(spec, len(topology.consumers(spec)), config, shapes, backing)
        except BaseException:
            for ring in made.values():
                ring.__exit__()
            raise
        return cls(made)

    def handles(self, stage: StageSpec) -> dict[str, ipc.RingHandle]:
        """Of the rings that this stage reads or writes."""
        return {spec.key: self.rings[spec.key].handle for spec in stage.rings if spec.key in self.rings}

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


def segment_sizes(topology: Topology, config: Configuration, shapes: Shapes) -> dict[str, int]:
    """Bytes of each ring's segment, by its key."""
    return {spec.key: _segment_size(spec, len(topology.consumers(spec)), config, shapes) for spec in topology.rings}


def _of_replica(topology: Topology, replica: int) -> Iterable[RingSpec]:
    return (spec for spec in topology.rings if spec.replica == replica)


def _make(spec: RingSpec, consumers: int, config: Configuration, shapes: Shapes, backing: ipc.Backing | None) -> Ring:
    """Several consumers are the ranks of a stage: the death of one ends their rings."""
    flow, size = spec.flow, spec.flow.size(config)
    if flow.layout is not None:
        layout = flow.layout(shapes)
        return ipc.SlotRing.create(
            spec.key, slots=size, layout=layout, consumers=consumers, on_death="end", backing=backing
        )
    return ipc.ByteRing.create(spec.key, capacity=size, consumers=consumers, on_death="end", backing=backing)


def _segment_size(spec: RingSpec, consumers: int, config: Configuration, shapes: Shapes) -> int:
    flow, size = spec.flow, spec.flow.size(config)
    if flow.layout is not None:
        return ipc.SlotRing.segment_size(size, flow.layout(shapes), consumers=consumers)
    return ipc.ByteRing.segment_size(size, consumers=consumers)
