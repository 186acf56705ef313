"""Which weights each replica has, and a change of them: one replica after the other.

    idle → checking → replacing replica 0 → asking it → replacing replica 1 → … → idle

A replica that does not start with the new ones, or does not answer, gets back those that it had; then the change is
over, and the others stay as they are. Knows no process: what happens is told to it, and it says what is to be done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pipeline.launcher.weights.check import Weights


class Outcome(Enum):
    """Of a change; the values are for those who ask."""

    UNDER_WAY = "under way"
    DONE = "done"
    REFUSED = "refused"
    ROLLED_BACK = "rolled back"


@dataclass(slots=True)
class Change:
    """`call`: by which whoever asked for it knows it. `left`: replicas that are still to get the new weights, in
    order; `replica`: the one whose turn it is."""

    call: int
    folder: str
    left: list[int]
    weights: Weights | None = None
    replica: int | None = None
    outcome: Outcome = Outcome.UNDER_WAY
    error: str = ""
    done: list[int] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        return {
            "call": self.call,
            "folder": self.folder,
            "weights": self.weights.id if self.weights else "",
            "replica": self.replica,
            "done": list(self.done),
            "outcome": self.outcome.value,
            "error": self.error,
        }


class Rollout:
    """Of all replicas, which begin with the same weights."""

    def __init__(self, replicas: int, weights: Weights) -> None:
        self.weights = [weights] * replicas  # that each has, or is starting with
        self.change: Change | None = None  # the last one
        self._before = weights  # of the replica whose turn it is

    @property
    def state(self) -> str:
        if not self.under_way:
            return "idle"
        assert self.change is not None
        return "checking" if self.change.weights is None else "replacing"

    @property
    def under_way(self) -> bool:
        return self.change is not None and self.change.outcome is Outcome.UNDER_WAY

    @property
    def replacing(self) -> int | None:
        """The replica whose turn it is."""
        return self.change.replica if self.change is not None and self.under_way else None

    def report(self) -> dict[str, Any]:
        change = None if self.change is None else self.change.report()
        return {"state": self.state, "replicas": [one.id for one in self.weights], "change": change}

    # ---- what happens ---------------------------------------------------------------------------------------

    def begin(self, call: int, folder: str) -> bool:
        """False: another change is under way."""
        if self.under_way:
            return False
        self.change = Change(call, folder, [*range(len(self.weights))])
        return True

    def on_checked(self, weights: Weights) -> None:
        """What already has them stays, unless all do: then they are to be loaded again."""
        change = self._now()
        change.weights = weights
        change.left = [replica for replica in change.left if self.weights[replica] != weights] or change.left

    def on_refused(self, why: str) -> None:
        self._end(Outcome.REFUSED, why)

    def next(self, serves: Callable[[int], bool]) -> int | None:
        """The replica that is to be started anew now, if there is one: while it is away all others serve, but for
        those that still get the new weights. One that is away is the first: perhaps only these bring it back."""
        change = self._now()
        if change.weights is None or change.replica is not None:
            return None
        away = [other for other in range(len(self.weights)) if not serves(other)]
        replica = next((other for other in change.left if other in away), change.left[0])
        if any(other not in change.left for other in away):
            return None
        change.left.remove(replica)
        change.replica = replica
        self._before, self.weights[replica] = self.weights[replica], change.weights
        return replica

    def on_answered(self, replica: int) -> None:
        """It serves with the new weights."""
        change = self._now()
        change.replica = None
        change.done.append(replica)
        if not change.left:
            self._end(Outcome.DONE)

    def on_failed(self, replica: int, why: str) -> None:
        """It is to be started with what it had."""
        self.weights[replica] = self._before
        self._end(Outcome.ROLLED_BACK, why)

    def _now(self) -> Change:
        assert self.change is not None
        assert self.under_way
        return self.change

    def _end(self, outcome: Outcome, error: str = "") -> None:
        change = self._now()
        change.outcome, change.error = outcome, error
        if outcome is not Outcome.ROLLED_BACK:
            change.replica = None


def all_the_same(weights: Sequence[Weights]) -> Weights | None:
    """Those that all replicas have."""
    return weights[0] if weights and all(one == weights[0] for one in weights) else None
