"""Simulated time."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from itertools import count


class Clock:
    """Events in the order of their times, in ms; of equal ones in the order in which they were set."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def at(self, time: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), what))

    @property
    def more(self) -> bool:
        """There are events."""
        return bool(self._events)

    def run(self, until: float = math.inf) -> None:
        """To the last event before then."""
        events = self._events
        while events and events[0][0] < until:
            self.now, _, what = heapq.heappop(events)
            what()
