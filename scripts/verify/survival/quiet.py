"""What a server holds when nothing runs: the same before and after whatever was done to it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Self

from scripts.verify.survival.server import Server

_NOTHING = ("num_requests_running", "num_requests_waiting", "kv_blocks_used", "requests_in_flight")
_PATIENCE_S, _LOOK_S = 10.0, 0.1


@dataclass(frozen=True, slots=True)
class Quiet:
    """As it was at the beginning."""

    descriptors: dict[str, int]
    segments: int
    kv_blocks: float

    @classmethod
    def of(cls, server: Server) -> Self:
        return cls(server.descriptors(), len(server.segments()), server.metrics()["ringserve_kv_blocks"])

    async def differences(self, server: Server) -> list[str]:
        """What is in use, or held in addition, some time after the last client has gone."""
        deadline = time.monotonic() + _PATIENCE_S
        while (found := await asyncio.to_thread(self._look, server)) and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK_S)
        return found

    def _look(self, server: Server) -> list[str]:
        now, segments = server.descriptors(), len(server.segments())
        metrics = server.metrics()  # last: it is a connection of its own
        found = [f"{name} is {metrics[f'ringserve_{name}']:g}" for name in _NOTHING if metrics[f"ringserve_{name}"]]
        found += [
            f"{name} holds {now.get(name, 0)} descriptors, {held} at first"
            for name, held in self.descriptors.items()
            if now.get(name, 0) > held
        ]
        if segments != self.segments:
            found.append(f"{segments} segments are held, {self.segments} at first")
        if metrics["ringserve_kv_blocks"] != self.kv_blocks:
            found.append(f"there are {metrics['ringserve_kv_blocks']:g} KV blocks, {self.kv_blocks:g} at first")
        return found
