"""What is done to processes: kill -9, and SIGSTOP for ten seconds, of one stage or of several at once.

Stages are named by their keys: where there are several replicas, with their numbers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

STOPPED_S = 10.0
_SPREAD_S = 0.05  # several are hit within this time


@dataclass(frozen=True, slots=True)
class Fault:
    """Signals by stage. `weights`: new ones are loaded meanwhile."""

    name: str
    signals: Mapping[str, signal.Signals]
    weights: bool = False

    @property
    def hits_front(self) -> bool:
        return "front" in self.signals

    @property
    def kind(self) -> str:
        """Its name, whichever replica it hits."""
        return " ".join(word for word in self.name.split() if not word.isdecimal())

    def replicas(self, count: int) -> set[int]:
        """Whose rings end, of so many."""
        if self.hits_front or count == 1:
            return set(range(count))
        return {int(stage.split()[1].partition(".")[0]) for stage in self.signals}


def deal(stages: Sequence[str], rng: random.Random, *, weights: bool = False) -> Iterator[Fault]:
    """Faults without end: every kind once, in random order, then again. `weights`: new ones are loaded, too."""
    while True:
        hand = [Fault(f"kill {stage}", {stage: signal.SIGKILL}) for stage in stages]
        hand += [Fault(f"stop {stage}", {stage: signal.SIGSTOP}) for stage in stages]
        if len(stages) > 1:
            hand.append(Fault("kill several", dict.fromkeys(_some(stages, rng), signal.SIGKILL)))
            hand.append(Fault("stop several", dict.fromkeys(_some(stages, rng), signal.SIGSTOP)))
            one, other = rng.sample(stages, 2)
            hand.append(Fault("kill one, stop another", {one: signal.SIGKILL, other: signal.SIGSTOP}))
        if weights:
            hand.append(Fault("new weights", {}, weights=True))
            for stage in rng.sample(stages, min(2, len(stages))):
                hand.append(Fault(f"new weights, kill {stage}", {stage: signal.SIGKILL}, weights=True))
        yield from rng.sample(hand, len(hand))


def _some(stages: Sequence[str], rng: random.Random) -> list[str]:
    return rng.sample(stages, rng.randint(2, len(stages)))


async def inflict(fault: Fault, pids: Mapping[str, int], rng: random.Random) -> None:
    """Signals go through pidfds: no successor of a process is ever hit in its place."""
    for stage, number in rng.sample(sorted(fault.signals.items()), len(fault.signals)):
        await asyncio.sleep(rng.uniform(0, _SPREAD_S) if len(fault.signals) > 1 else 0)
        with contextlib.suppress(ProcessLookupError, KeyError):  # another fault may have taken it along
            pidfd = os.pidfd_open(pids[stage])
            _send(pidfd, number)
            if number is signal.SIGSTOP:
                asyncio.get_running_loop().call_later(STOPPED_S, _send, pidfd, signal.SIGCONT, True)
            else:
                os.close(pidfd)


def _send(pidfd: int, number: signal.Signals, last: bool = False) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)
    if last:
        os.close(pidfd)
