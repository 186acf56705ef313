"""What a request sees of the connection that it came by."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol


class Line(Protocol):
    """`on_lost` holds what is to be called once when the connection is gone, with why it is; `lost` tells that it is
    for ever after. `write_paused`: the client does not keep up."""

    transport: asyncio.Transport
    write_paused: bool
    lost: bool
    on_lost: set[Callable[[str], None]]
    client: str  # its address, empty if it has gone already
    port: int  # that it connected to

    def abort(self) -> None:
        """Close at once, without waiting until the client has read what was written."""
        ...

    async def drain(self) -> None:
        """Until the client keeps up, or is gone."""
        ...

    def taken(self) -> None:
        """What had come of the body is with the handler: there is room for more."""
        ...

    def answered(self) -> None:
        """The answer is complete."""
        ...
