"""What an answer that is kept has come to so far: events, known by their positions, or one piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pipeline.front.http.errors import ApiError
from pipeline.front.http.exchange import Header

STREAM_ID: Final = b"x-stream-id"
_SSE: Final = b"\n\n"
_RETRY: Final = b"retry: 1000\n"
"""How soon a client comes back whose connection is lost, in ms."""

_BESIDE: Final = 100  # bytes that Python takes for each object


class Written:
    """`name`: as clients are told it."""

    def __init__(self, seed: str) -> None:
        self.name: Header = STREAM_ID, seed.encode()
        self.whole: tuple[int, bytes, bytes, Sequence[Header]] | None = None  # an answer in one piece
        self.head: tuple[int, bytes | None, Sequence[Header]] | None = None  # of a stream
        self.events: list[bytes] = []
        self.end_of_event = b""
        self.complete = False
        self.error: ApiError | None = None  # it has failed before anything of it was written
        self._trimmed = 0  # events before are empty: nobody reads them any more

    @property
    def over(self) -> bool:
        return self.complete or self.error is not None

    def add(self, piece: bytes) -> tuple[bytes, int]:
        """Whole events; as they are to be sent, and the memory that they take."""
        events, before, size = self.events, len(self.events), len(piece) + _BESIDE
        if before and piece.count(self.end_of_event) == 1:  # nearly always
            made = b"id: %d\n%b" % (before, piece) if self.end_of_event == _SSE else piece
            events.append(made)
            return made, size
        parts = self._numbered(piece)
        events += parts
        return b"".join(parts), size + _BESIDE * len(parts)

    def _numbered(self, piece: bytes) -> list[bytes]:
        parts = [part + self.end_of_event for part in piece.split(self.end_of_event)[:-1]]
        if self.end_of_event != _SSE or not parts:
            return parts
        first = len(self.events)
        made = [b"id: %d\n%b" % (number, part) for number, part in enumerate(parts, first)]
        if first == 0:
            made[0] = _RETRY + made[0]
        return made

    def trim(self, first: int) -> None:
        """What lies before this event goes; its number stays."""
        for number in range(self._trimmed, first):
            self.events[number] = b""
        self._trimmed = max(first, self._trimmed)
