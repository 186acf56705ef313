"""The rings of each generation of a replica, made and revoked by the launcher."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.config import Configuration
from pipeline.launcher.child import Child
from pipeline.runtime.generations import Ended, Generation
from pipeline.wire.rings import RingSet
from pipeline.wire.step import Shapes
from pipeline.wire.topology import Topology


class Rings:
    """`current` is None between two generations, `number` that of the current or last one. `on_end` is called with
    the number of one that has ended."""

    on_end: Callable[[int], None] | None = None

    def __init__(self, topology: Topology, replica: int, config: Configuration, shapes: Shapes) -> None:
        """Makes the first set: rings that don't fit are reported before anything is loaded. Raises IpcError."""
        self._topology, self._replica, self._config, self._shapes = topology, replica, config, shapes
        self._spare: RingSet | None = self._make()
        self.current: RingSet | None = None
        self.number = 0
        self.weights = ""  # id of those that the next generation is computed with
        self.on_trial = False  # it has to answer with them before it gets requests

    def begin(self) -> RingSet:
        """A new set. Raises IpcError; then there is none."""
        self.current, self._spare = self._spare or self._make(), None
        self.number += 1
        return self.current

    def give(self, child: Child, ended: tuple[Ended, ...]) -> None:
        """Raises ChannelError for a stage that does not take them."""
        assert self.current is not None
        child.attachments[self._replica].generation = self.number
        handles = self.current.handles(child.spec)
        generation = Generation(self.number, handles, ended, self._replica, self.weights, self.on_trial)
        fields, fds = generation.to_message()
        child.send("generation", fds, **fields)

    def end(self) -> None:
        """Revoke them: every process that is attached detaches. The memory is free when all have."""
        if self.current is not None:
            self.current.revoke()
            self.current.close()
            self.current = None
            if self.on_end is not None:
                self.on_end(self.number)

    def close(self) -> None:
        self.end()
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    def _make(self) -> RingSet:
        rings = RingSet.create(self._topology, self._replica, self._config, self._shapes)
        rings.unlink()
        return rings
