"""One replica, as the front sees it: the rings to and from it while there are any, and what is known when they end."""

from __future__ import annotations

import asyncio

from pipeline.front.delivery.ring_client import RingClient
from pipeline.runtime.generations import Verdict

NOWHERE = -1
"""The home of a request that waits for whichever replica comes first."""


class Lane:
    """`attach` and `detach` are the backend's. Made inside a running loop."""

    def __init__(self, replica: int) -> None:
        self.replica = replica
        self.generation = 0  # that it has rings of, or had last
        self.client: RingClient | None = None
        self.closed = asyncio.Event()  # nothing more comes from these rings
        self.reading: asyncio.Task[None] | None = None
        self.verdict: Verdict | None = None  # who may be to blame for the end of this generation
        self.away = False  # it does not come back soon

    def attach(self, client: RingClient, generation: int) -> None:
        self.client, self.generation = client, generation
        self.verdict, self.away = None, False
        self.closed.clear()

    @property
    def up(self) -> bool:
        """Records can be sent there."""
        return self.client is not None and not self.closed.is_set()
