"""Does what a `Rollout` decides: ends a replica's inference, has it started with other weights, and asks it something
before the next one's turn. Its streams go on as if it had been stopped from outside.

Preprocess and sampling stay: what they keep of a model is the same by the check, and every generation begins with an
empty prefix cache.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.config import Configuration
from pipeline.launcher.child import REPLACED, WITH_OTHERS, Child
from pipeline.launcher.replica import Replica
from pipeline.launcher.weights.check import RefusedError, Weights, without_paths
from pipeline.launcher.weights.check_process import CheckProcess
from pipeline.launcher.weights.rollout import Rollout, all_the_same
from pipeline.runtime.control_channel import ChannelError
from pipeline.stats import StageState, Supervision
from pipeline.wire.topology import INFERENCE, StageSpec, Topology

log = logging.getLogger("ringserve.launcher")

_LOOK_S = 0.05  # while a folder is being looked at


class Changes:
    """`children`: those that live; `restart` starts a unit again, as soon as nothing of it lives."""

    def __init__(
        self,
        weights: str,
        topology: Topology,
        replicas: Sequence[Replica],
        children: Mapping[str, Child],
        supervision: Supervision,
        restart: Callable[[str], None],
    ) -> None:
        self._rollout = Rollout(topology.replicas, Weights(weights))
        self._topology, self._replicas, self._children = topology, replicas, children
        self._supervision, self._restart = supervision, restart
        self._check: CheckProcess | None = None
        self._leaving: int | None = None  # pid of what is to be dead before others take its place
        for replica in replicas:
            replica.give_weights(weights)

    @property
    def due(self) -> float:
        """When there is something to look at that no event tells of."""
        return time.monotonic() + _LOOK_S if self._check is not None else float("inf")

    def of(self, config: Configuration, stage: StageSpec) -> Configuration:
        """The configuration with which this stage is to be started."""
        every = self._rollout.weights
        weights = all_the_same(every) if stage.replica is None else every[stage.replica]
        return config if weights is None else weights.in_place_of(config)

    def is_planned(self, stage: StageSpec) -> bool:
        """Its start is none that a failure has caused."""
        return stage.name == INFERENCE.name and stage.replica == self._rollout.replacing

    def close(self) -> None:
        if self._check is not None:
            self._check.close()
            self._check = None

    # ---- what fronts say ------------------------------------------------------------------------------------

    def begin(self, config: Configuration, front: Child, fields: Mapping[str, Any], refused: str) -> None:
        """A front has asked for it. `refused`: why nothing can be changed now."""
        folder, call = fields["folder"], fields["call"]
        if refused or not self._rollout.begin(call, folder):
            why = refused or "other weights are being loaded already"
            _send(front, "weights", {**self._rollout.report(), "busy": {"call": call, "why": why}})
            return
        log.info("weights: looking at %r", folder)
        try:
            self._check = CheckProcess(self._rollout.weights[0].in_place_of(config), folder)
        except OSError as error:
            self._rollout.on_refused(f"no process could be started to look at it: {error.strerror}")
        self._tell()

    def on_answered(self, fields: Mapping[str, Any]) -> None:
        """The replica whose turn it is has answered, or not."""
        number = fields["replica"]
        replica = self._replicas[number]
        if not self._is_new(replica) or not replica.complete or fields["generation"] != replica.generation:
            return
        if fields["why"]:
            self._fail(replica, f"it does not answer: {fields['why']}")
            return
        self._rollout.on_answered(number)
        replica.give_weights(replica.weights)
        for front in self._fronts():
            _send(front, "proven", {"replica": number, "generation": replica.generation})
        log.warning("%sweights %s serve", replica.title, replica.weights)
        self._tell()

    def tell(self, front: Child) -> None:
        """One that has just been started."""
        _send(front, "weights", self._rollout.report())

    # ---- what happens to replicas ---------------------------------------------------------------------------

    def on_complete(self, replica: Replica) -> None:
        """It serves again: does it answer?"""
        if self._is_new(replica):
            for front in self._fronts()[:1]:
                _send(front, "probe", {"replica": replica.number, "generation": replica.generation})

    def on_death(self, child: Child, what: str) -> bool:
        """Whether it is taken care of: the stage is being replaced, or the new weights have failed."""
        planned = child.pid == self._leaving
        if not planned and not self.is_planned(child.spec):
            return False
        if planned:
            self._leaving = None
        elif self._leaving is None:  # else it was a rank with the old ones
            self._roll_back(self._replicas[child.spec.replica or 0], what)
        for stage in self._topology.unit(child.spec.unit):
            self._supervision.set_state(stage.key, StageState.STARTING)
        self._restart(child.spec.unit)
        return True

    def _is_new(self, replica: Replica) -> bool:
        """It is this one's turn, and nothing of it has the old weights any more."""
        return replica.number == self._rollout.replacing and self._leaving is None

    def look(self) -> None:
        """Go on with what can go on. Never waits."""
        if self._check is not None and (found := self._check.result()) is not None:
            self._check = None
            self._on_checked(found)
        if self._rollout.under_way and self._check is None:
            number = self._rollout.next(lambda other: self._replicas[other].complete)
            if number is not None:
                self._replace(self._replicas[number])

    def _on_checked(self, found: Weights | RefusedError) -> None:
        if isinstance(found, RefusedError):
            log.info("weights: refused: %s", found)
            self._rollout.on_refused(str(found))
        else:
            self._rollout.on_checked(found)
        self._tell()

    def _replace(self, replica: Replica) -> None:
        """With what the rollout says that it is to have."""
        replica.give_weights(self._rollout.weights[replica.number].id, on_trial=True)
        log.warning("%sloading the weights %s", replica.title, replica.weights)
        self._end(replica)
        self._tell()

    def _fail(self, replica: Replica, why: str) -> None:
        self._roll_back(replica, why)
        self._end(replica)

    def _roll_back(self, replica: Replica, why: str) -> None:
        assert self._rollout.change is not None
        self._rollout.on_failed(replica.number, without_paths(why, self._rollout.change.folder))
        replica.give_weights(self._rollout.weights[replica.number].id)
        log.error("%sthe new weights do not serve, the old ones %s again: %s", replica.title, replica.weights, why)
        self._tell()

    def _end(self, replica: Replica) -> None:
        """Its inference, whose death starts it again, with all ranks. What it keeps is memory and a device, which the
        kernel and the driver take back."""
        stages = [stage for stage in self._topology.replica(replica.number) if stage.name == INFERENCE.name]
        children = filter(None, (self._children.get(stage.key) for stage in stages))
        child = next((child for child in children if child.ended_as != WITH_OTHERS), None)
        if child is None:  # it is being started anew
            self._leaving = None
            self._restart(stages[0].unit)
            return
        self._leaving, child.ended_as = child.pid, child.ended_as or REPLACED
        child.signal(signal.SIGKILL)

    # ---- what others see ------------------------------------------------------------------------------------

    def _fronts(self) -> list[Child]:
        return [child for child in self._children.values() if child.spec.is_front]

    def _tell(self) -> None:
        for front in self._fronts():
            self.tell(front)


def _send(front: Child, event: str, fields: Mapping[str, Any]) -> None:
    with contextlib.suppress(ChannelError):  # its end is about to be noticed
        front.send(event, (), **fields)
