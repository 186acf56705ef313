"""Where the ranks of a stage meet: a segment of shared memory for each unit that has several."""

from __future__ import annotations

from collections.abc import Collection

import ipc
from model.mindspore_common.ranks import behind, end, segment_bytes
from pipeline.wire.topology import StageSpec, Topology


class Meetings:
    """Made when ranks are started, and anew when they are started anew: the old one holds what the dead said."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._segments: dict[str, ipc.Segment] = {}  # by units

    def fd_of(self, stage: StageSpec, running: Collection[str]) -> int | None:
        """Of the segment that this rank is to be given; None where there is one rank. `running`: keys of stages."""
        unit = self._topology.unit(stage.unit)
        if len(unit) == 1:
            return None
        if not any(other.key in running for other in unit):
            if (old := self._segments.pop(stage.unit, None)) is not None:
                old.close()
            self._segments[stage.unit] = ipc.Segment.create("ranks", segment_bytes(len(unit)), ipc.Backing.MEMFD)
        return self._segments[stage.unit].fd

    def end_generation(self, replica: int, number: int) -> None:
        """No rank of it waits for another any more: they may have parted where its rings ended."""
        for name, segment in self._segments.items():
            unit = self._topology.unit(name)
            if unit[0].replica == replica:
                end(segment.map, len(unit), number)

    def is_waited_for(self, stage: StageSpec) -> bool:
        """By other ranks of its unit, which can't go on before it does."""
        segment = self._segments.get(stage.unit)
        return segment is not None and stage.rank in behind(segment.map, len(self._topology.unit(stage.unit)))

    def close(self) -> None:
        for segment in self._segments.values():
            segment.close()
        self._segments.clear()
