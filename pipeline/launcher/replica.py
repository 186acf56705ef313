"""One replica, as the launcher sees it: its rings, one generation after the other, and the stages that use them.

The fronts use the rings of every replica. What ends a generation of one replica leaves those of the others alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from pipeline.launcher.child import Attachment, Child, Phase
from pipeline.launcher.hang_detector import HangDetector
from pipeline.launcher.rings import Rings
from pipeline.runtime.control_channel import ChannelError
from pipeline.runtime.generations import KILLED, Ended
from pipeline.stats import StageState, Supervision
from pipeline.wire.topology import Topology

_ATTACHED = (Phase.ATTACHING, Phase.SERVING)


class Replica:
    """`complete`: every stage serves in the current generation. `useful`: units that did something in the last."""

    def __init__(
        self,
        topology: Topology,
        number: int,
        rings: Rings,
        children: Mapping[str, Child],
        detector: HangDetector,
        supervision: Supervision,
    ) -> None:
        self.number, self.complete, self.was_complete = number, False, False
        self.useful: set[str] = set()
        self.down_since = 0.0
        several = topology.replicas > 1
        self.rings_title = f"the rings of replica {number}" if several else "the rings"  # blamed where no stage is
        self.title = f"replica {number}: " if several else ""  # before what is logged of it
        self._rings, self._children, self._detector, self._supervision = rings, children, detector, supervision
        self._users = topology.users(number)
        self._ended: list[Ended] = []  # deaths since a generation was complete

    @property
    def members(self) -> list[Child]:
        """Processes that use its rings, of those there are."""
        return [self._children[stage.key] for stage in self._users if stage.key in self._children]

    @property
    def all_there(self) -> bool:
        return len(self.members) == len(self._users)

    def _attachments(self) -> Iterator[Attachment]:
        return (child.attachments[self.number] for child in self.members)

    # ---- what stages say --------------------------------------------------------------------------------------

    def on_waiting(self, child: Child) -> bool:
        """Whether it left before its rings were revoked."""
        attachment = child.attachments[self.number]
        left, attachment.phase = attachment.phase in _ATTACHED, Phase.WAITING
        return left

    def on_ready(self, child: Child) -> bool:
        """Whether every stage serves now."""
        attachment = child.attachments[self.number]
        if attachment.phase is not Phase.ATTACHING:
            return False
        attachment.phase = Phase.SERVING
        if any(other.phase is not Phase.SERVING for other in self._attachments()):
            return False
        self._on_complete()
        return True

    def _on_complete(self) -> None:
        self.complete = self.was_complete = True
        self._detector.complete(self.number)
        self._ended.clear()
        for stage in self._users:
            self._supervision.set_state(stage.key, StageState.OK)

    def on_death(self, child: Child, how: str) -> None:
        """It ends the generation, and those who get the next one are told how."""
        attachment = child.attachments[self.number]
        if attachment.phase in (*_ATTACHED, Phase.LEAVING):
            in_hand = self._detector.in_hand(child)
            if self._detector.is_compiling(child):
                how = KILLED
            self._ended.append(Ended(child.spec.name, how, attachment.generation, in_hand))
        self.end_generation()

    # ---- rings ------------------------------------------------------------------------------------------------

    def end_generation(self) -> None:
        """Every stage lets go of its rings, and waits for others."""
        if self._rings.current is None:
            return
        self.useful = self._detector.end(self.number)
        if self.useful:
            self.useful.add(self.rings_title)
        self._rings.end()
        if self.complete:
            self.down_since = time.monotonic()
        self.complete = False
        for attachment in self._attachments():
            if attachment.phase in _ATTACHED:
                attachment.phase = Phase.LEAVING

    def waits_for_rings(self, being_restarted: Mapping[str, float]) -> bool:
        """Everybody is there and has let go of the old ones, whose memory is free then. `being_restarted`: units, or
        rings, that are not to be waited for in vain."""
        if self._rings.current is not None or not self.all_there or self.rings_title in being_restarted:
            return False
        if any(stage.unit in being_restarted for stage in self._users):
            return False
        return all(attachment.phase is Phase.WAITING for attachment in self._attachments())

    def hand_over(self) -> list[tuple[Child, ChannelError]]:
        """Fresh rings, to everybody. Returns those who do not listen. Raises IpcError."""
        self._detector.begin(self.number, self._rings.begin())
        self._supervision.set_generation(self.number, self._rings.number)
        deaf = []
        for child in self.members:
            child.attachments[self.number].phase = Phase.ATTACHING
            try:
                self._rings.give(child, tuple(self._ended))
            except ChannelError as error:
                deaf.append((child, error))
        return deaf
