"""How busy the machine was with what has nothing to do with a measurement."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from scripts.lab.clock import machine_busy_seconds


class Others:
    """Counts from its making on. This process is not one of the others, nor is what it started and has waited for;
    `running_s` tells the CPU time so far of what it started and what still runs."""

    def __init__(self, running_s: Callable[[], float] = lambda: 0.0) -> None:
        self._running_s = running_s
        self._began, self._others_s = time.monotonic(), self._now_s()

    def _now_s(self) -> float:
        own = os.times()
        ours = own.user + own.system + own.children_user + own.children_system
        return machine_busy_seconds() - ours - self._running_s()

    @property
    def wall_s(self) -> float:
        return time.monotonic() - self._began

    def percent(self) -> float:
        """Of one CPU, on average."""
        return max(0.0, 100 * (self._now_s() - self._others_s) / self.wall_s)
