"""How fast the queue moves, and so whether a request with a deadline has a chance. Measured only while requests wait:
how many are served when none does says nothing of a queue."""

from __future__ import annotations

_S = 1_000_000_000
_WINDOW_NS = _S  # of a measurement, at least
_NEW = 0.5  # weight of the newest one


class Pace:
    """`note` before each step, by the caller's clock, in nanoseconds."""

    def __init__(self) -> None:
        self._rate = 0.0  # rows given to those that waited, per second; 0: not known yet
        self._begin_ns = 0  # of the measurement; 0: there is none
        self._admitted = 0  # then

    def note(self, now_ns: int, admitted: int, *, waiting: bool) -> None:
        """`admitted`: rows given so far."""
        if not waiting or not self._begin_ns:
            self._begin_ns, self._admitted = now_ns if waiting else 0, admitted
        elif now_ns - self._begin_ns >= _WINDOW_NS and admitted > self._admitted:
            rate = (admitted - self._admitted) * _S / (now_ns - self._begin_ns)
            self._rate += (rate - self._rate) * (_NEW if self._rate else 1.0)
            self._begin_ns, self._admitted = now_ns, admitted

    def wait_s(self, before: float) -> float:
        """Until a request gets a row that so many get one before; 0 where nothing was measured."""
        return before / self._rate if self._rate else 0.0
