"""Texts that are encoded because a client wants to know their tokens: nothing is generated.

They have a thread of low priority for themselves, so that no prompt waits for them. Ids go to the front in pieces,
each when the front asks for it: a long answer fills no ring, and delays nobody's tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from pipeline.preprocess.work_thread import WorkThread
from pipeline.runtime import background
from pipeline.wire.request import Encode, Encoded, Refused
from pipeline.wire.step import Int32

PIECE = 1 << 12  # ids of a reply


@dataclass(frozen=True, slots=True)
class Tokenized:
    """A prompt: the number of token ids, and the ids unless they are too many; or status and reason of a refusal."""

    count: int = 0
    ids: Int32 = field(default_factory=lambda: np.zeros(0, np.int32))
    refusal: tuple[int, str] | None = None


class Reader(Protocol):
    """What encodes; it may be called by any thread."""

    def encode(self, asked: Encode) -> Tokenized: ...


class _Encoding:
    """One text. `asked` is None once nobody wants it any more."""

    def __init__(self, asked: Encode, reader: Reader) -> None:
        self.asked: Encode | None = asked
        self._request, self._attempt, self._reader = asked.request, asked.attempt, reader
        self._result = Tokenized()
        self._sent = 0

    def encode(self) -> None:
        if self.asked is not None:
            self._result = self._reader.encode(self.asked)

    @property
    def over(self) -> bool:
        """There is no piece that was not sent."""
        return self._sent >= self._result.ids.size

    def reply(self) -> bytes:
        """The next piece, or the refusal."""
        if self._result.refusal is not None:
            return Refused(self._request, self._attempt, *self._result.refusal, "prompt").pack()
        piece = self._result.ids[self._sent : self._sent + PIECE]
        self._sent += PIECE
        return Encoded(self._request, self._attempt, self._result.count, piece.tobytes(), self.over).pack()


class Encodings:
    """Called by one thread. `wake`: `take` may have something; `publish` gets the request that is worked on, or 0."""

    def __init__(self, publish: Callable[[int], None], wake: Callable[[], None]) -> None:
        self._publish, self._wake = publish, wake
        self._thread: WorkThread[_Encoding] = WorkThread("encoding", self._encode, background.lower_priority)
        self._live: dict[int, _Encoding] = {}
        self._done: deque[_Encoding] = deque()

    @property
    def live(self) -> int:
        """Texts of whose ids some have not been asked for yet."""
        return len(self._live)

    def at_once(self, asked: Encode, reader: Reader) -> bytes:
        """The reply for a short text."""
        encoding = self._live[asked.request] = _Encoding(asked, reader)
        encoding.encode()
        return self._reply(asked.request)

    def add(self, asked: Encode, reader: Reader) -> None:
        """For a long one, `take` has the reply in time."""
        encoding = self._live[asked.request] = _Encoding(asked, reader)
        self._thread.put(encoding)

    def take(self) -> bytes | None:
        """The first reply for a text that is done, if there is one."""
        while self._done:
            asked = self._done.popleft().asked
            if asked is not None:
                return self._reply(asked.request)
        return None

    def go_on(self, request: int) -> bytes | None:
        """The next one; None for a text that is not here any more."""
        return self._reply(request) if request in self._live else None

    def _reply(self, request: int) -> bytes:
        encoding = self._live[request]
        reply = encoding.reply()
        if encoding.over:
            del self._live[request]
        return reply

    def cancel(self, request: int) -> bool:
        """Forget a text; False: it is not here (any more)."""
        encoding = self._live.pop(request, None)
        if encoding is None:
            return False
        encoding.asked = None  # the text need not be kept until its turn comes
        return True

    def clear(self) -> None:
        """Forget all: the front sends them again."""
        for request in list(self._live):
            self.cancel(request)
        self._done.clear()

    def close(self) -> None:
        """Wait for the one that is worked on, and end the thread."""
        self.clear()
        self._thread.end()

    def _encode(self, encoding: _Encoding) -> None:
        asked = encoding.asked
        if asked is not None:
            self._publish(asked.request)
            encoding.encode()
            self._publish(0)
        self._done.append(encoding)
        self._wake()
