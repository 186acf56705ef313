"""Times of the front's own work, kept only while a trace is recorded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

Span = tuple[int, int]  # begin, end in ns of the monotonic clock

_KEPT = 100_000


class Spans:
    """`wanted` is read once per write."""

    def __init__(self) -> None:
        self.wanted = 0
        self._spans: deque[Span] = deque(maxlen=_KEPT)

    def add(self, begin: int, end: int) -> None:
        self._spans.append((begin, end))

    @contextmanager
    def recording(self) -> Iterator[deque[Span]]:
        self.wanted += 1
        try:
            yield self._spans
        finally:
            self.wanted -= 1
            if not self.wanted:
                self._spans = deque(maxlen=_KEPT)
