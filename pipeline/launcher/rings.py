"""The rings of each generation, made and revoked by the launcher."""

from __future__ import annotations

from pipeline.config import Configuration
from pipeline.launcher.child import Child
from pipeline.runtime.generations import Ended, Generation
from pipeline.wire.rings import Wiring
from pipeline.wire.step import Shapes


class Rings:
    """`current` is None between two generations, `number` that of the current or last one."""

    def __init__(self, config: Configuration, shapes: Shapes) -> None:
        """Makes the first set: rings that don't fit are reported before anything is loaded. Raises IpcError."""
        self._config, self._shapes = config, shapes
        self._spare: Wiring | None = self._make()
        self.current: Wiring | None = None
        self.number = 0

    def begin(self) -> Wiring:
        """A new set. Raises IpcError; then there is none."""
        self.current, self._spare = self._spare or self._make(), None
        self.number += 1
        return self.current

    def give(self, child: Child, ended: tuple[Ended, ...]) -> None:
        """Raises ChannelError for a stage that does not take them."""
        assert self.current is not None
        child.generation = self.number
        fields, fds = Generation(self.number, self.current.handles(child.name), ended).to_message()
        child.send("generation", fds, **fields)

    def end(self) -> None:
        """Revoke them: every process that is attached detaches. The memory is free when all have."""
        if self.current is not None:
            self.current.revoke()
            self.current.close()
            self.current = None

    def close(self) -> None:
        self.end()
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    def _make(self) -> Wiring:
        wiring = Wiring.create(self._config, self._shapes)
        wiring.unlink()
        return wiring
