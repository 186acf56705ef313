"""The part of a connection that a request sees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol


class Line(Protocol):
    """`on_lost` holds functions that are called once, with the reason, when the connection is lost; from then on
    `lost` is true. `write_paused`: the client does not keep up."""

    transport: asyncio.Transport
    write_paused: bool
    lost: bool
    on_lost: set[Callable[[str], None]]
    client: str  # its address, empty if it has disconnected already
    port: int  # that it connected to

    def abort(self) -> None:
        """Close at once, without waiting until the client has read what was written."""
        ...

    async def drain(self) -> None:
        """Until the client keeps up, or is gone."""
        ...

    def taken(self) -> None:
        """The handler has taken what had arrived of the body: there is room for more."""
        ...

    def answered(self) -> None:
        """The answer is complete."""
        ...
