"""Requests that may have made a replica fail, as the front keeps them where there are several replicas.

A suspect waits for the replica that failed, and runs alone there (`pipeline.preprocess.quarantine`). If that stays
away, suspects go on elsewhere, one at a time. So a request that kills whoever computes it costs two replicas at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.front.delivery.stream import TokenStream
from pipeline.front.http.errors import SERVER, ApiError
from pipeline.wire.request import FAILS_TWICE

_BEYOND = 3  # tokens that a suspect must yield after it was named: more than were being computed then


def conviction() -> ApiError:
    """The answer to a request that made a process fail, and did so again."""
    return ApiError(500, FAILS_TWICE, kind=SERVER)


class Suspects:
    """`guest`: the one that runs on a replica that did not fail."""

    def __init__(self) -> None:
        self._named: dict[TokenStream, int] = {}  # with so many tokens; the oldest first
        self._guest: TokenStream | None = None

    def __contains__(self, stream: TokenStream) -> bool:
        if stream not in self._named:
            return False
        if stream.live and len(stream.tokens) < self._named[stream] + _BEYOND:
            return True
        self.forget(stream)
        return False

    def __bool__(self) -> bool:
        return bool(self._named)

    def forget(self, stream: TokenStream) -> None:
        """It is cleared, or over."""
        self._named.pop(stream, None)
        if self._guest is stream:
            self._guest = None

    def name(self, streams: Sequence[TokenStream], *, alone: bool) -> list[TokenStream]:
        """These may have made a replica fail. Returns those that are convicted: they were suspects before. `alone`:
        only where there is no other, since suspects run alone where that replica failed."""
        again = [stream for stream in streams if stream in self]
        convicted = again if len(streams) == 1 or not alone else []
        for stream in streams:
            self.forget(stream)
            if stream not in convicted:
                self._named[stream] = len(stream.tokens)
        return convicted

    def homes(self) -> set[int]:
        """Replicas on which one runs, or waits to be run."""
        return {stream.home for stream in [*self._named] if stream in self}

    def next_guest(self, homeless: Iterable[int]) -> TokenStream | None:
        """The oldest whose home is one of these, unless there is a guest already."""
        if self._guest is not None and self._guest in self:
            return None
        return next((stream for stream in [*self._named] if stream in self and stream.home in homeless), None)

    def invite(self, stream: TokenStream) -> None:
        self._guest = stream
