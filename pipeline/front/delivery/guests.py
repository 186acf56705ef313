"""Those whose requests pass through this front but are not its own: routers on other machines, of a node's front."""

from __future__ import annotations

from typing import Protocol

from pipeline.front.delivery.lane import Lane
from pipeline.runtime.generations import Verdict
from pipeline.wire.request import Reply


class Guests(Protocol):
    """Told what the backend is told. Of deltas and replies those of requests that are not the front's own; False:
    nobody's."""

    @property
    def live(self) -> bool:
        """They have requests here."""
        ...

    def flush(self) -> None:
        """All deltas that came together have been told."""
        ...

    def on_attached(self, lane: Lane) -> None: ...

    def on_detached(self, lane: Lane) -> None: ...

    def on_verdict(self, verdict: Verdict) -> None: ...

    def on_away(self, replica: int) -> None: ...

    def on_delta(self, request: int, attempt: int, reason: int, record: bytes) -> bool: ...

    def on_reply(self, reply: Reply, record: bytes) -> bool: ...


class NoGuests:
    """Of a front that is no node's."""

    live = False

    def flush(self) -> None:
        pass

    def on_attached(self, lane: Lane) -> None:
        pass

    def on_detached(self, lane: Lane) -> None:
        pass

    def on_verdict(self, verdict: Verdict) -> None:
        pass

    def on_away(self, replica: int) -> None:
        pass

    def on_delta(self, request: int, attempt: int, reason: int, record: bytes) -> bool:
        return False

    def on_reply(self, reply: Reply, record: bytes) -> bool:
        return False
