"""One replica, as the launcher sees it: its rings, one generation after the other, and the stages that use them.

The fronts use the rings of every replica. What ends a generation of one replica leaves those of the others alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from pipeline.launcher.child import Attachment, Child, Phase
from pipeline.launcher.hang_detector import HangDetector
from pipeline.launcher.rings import Rings
from pipeline.runtime.control_channel import ChannelError
from pipeline.runtime.generations import AWAY_S, BY_ITSELF, HUNG, KILLED, Ended, Verdict
from pipeline.stats import StageState, Supervision
from pipeline.wire.topology import PREPROCESS, Topology

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
        self._undecided = False  # who may be to blame for the end of the last one
        self._aboard: Sequence[int] | None = ()  # of its requests, those that had a row; None: not known
        self._died_again = self._is_away = False

    @property
    def generation(self) -> int:
        """The current one, or the last."""
        return self._rings.number

    def give_weights(self, weights: str, *, on_trial: bool = False) -> None:
        """From the next generation on. `on_trial`: it gets no requests before it has answered with them."""
        self._rings.weights, self._rings.on_trial = weights, on_trial

    @property
    def weights(self) -> str:
        """Id of those that the next generation is computed with."""
        return self._rings.weights

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

    def on_waiting(self, child: Child, aboard: Sequence[int] | None) -> bool:
        """Whether it left before its rings were revoked. `aboard`: see `Control.waiting`."""
        if child.spec.name == PREPROCESS.name:
            self._aboard = aboard
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
        self._died_again = self._is_away = False
        self._detector.complete(self.number)
        self._ended.clear()
        for stage in self._users:
            self._supervision.set_state(stage.key, StageState.OK)

    def on_death(self, child: Child, how: str) -> None:
        """It ends the generation, and those who get the next one are told how."""
        self._died_again |= self.was_complete and not self.complete
        attachment = child.attachments[self.number]
        if attachment.phase in (*_ATTACHED, Phase.LEAVING):
            in_hand = self._detector.in_hand(child)
            if self._detector.is_compiling(child) or (how == HUNG and self._may_be_left_alone(child)):
                how = KILLED
            self._ended.append(Ended(child.spec.name, how, attachment.generation, in_hand))
        self.end_generation()

    def _may_be_left_alone(self, child: Child) -> bool:
        """In a step that its other ranks do not begin any more, since the generation has ended: where a device's own
        collectives wait, nothing but a time-out ends that, and no request is to blame."""
        ranks = [stage for stage in self._users if stage.unit == child.spec.unit]
        return len(ranks) > 1 and child.attachments[self.number].phase is Phase.LEAVING

    # ---- rings ------------------------------------------------------------------------------------------------

    def end_generation(self) -> None:
        """Every stage lets go of its rings, and waits for others."""
        if self._rings.current is None:
            return
        self.useful = self._detector.end(self.number)
        if self.useful:
            self.useful.add(self.rings_title)
        self._rings.end()
        self._undecided = True
        if self.complete:
            self.down_since = time.monotonic()
        self.complete = False
        for attachment in self._attachments():
            if attachment.phase in _ATTACHED:
                attachment.phase = Phase.LEAVING

    # ---- what fronts of several replicas are told ---------------------------------------------------------------

    def needs(self, unit: str) -> bool:
        """It does not serve without this unit, or these rings."""
        return unit == self.rings_title or any(stage.unit == unit for stage in self._users)

    def verdict(self) -> Verdict | None:
        """Who may be to blame for the end of the last generation; once, and as soon as it is known."""
        if not self._undecided or any(child.dead for child in self.members):
            return None  # a death that is not reported yet may be what has ended it
        number = self._rings.number
        ended = [one for one in self._ended if one.generation == number]
        failed = next((one for one in ended if one.how in BY_ITSELF), None)
        verdict = Verdict(self.number, number)
        if failed is not None:
            suspects: Sequence[int] | None = failed.in_hand
            if failed.stage != PREPROCESS.name:
                leaving = [child for child in self.members if child.attachments[self.number].phase is Phase.LEAVING]
                if any(child.spec.name == PREPROCESS.name for child in leaving):
                    return None  # it is about to say who was aboard
                suspects = None if any(one.stage == PREPROCESS.name for one in ended) else self._aboard
            verdict = Verdict(self.number, number, failed.stage, None if suspects is None else tuple(suspects))
        self._undecided = False
        return verdict

    def stays_away(self) -> bool:
        """It has failed once more, or is down for long; true once."""
        if self.complete or not self.was_complete or self._is_away:
            return False
        self._is_away = self._died_again or time.monotonic() - self.down_since > AWAY_S
        return self._is_away

    # ---- the next generation ------------------------------------------------------------------------------------

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
