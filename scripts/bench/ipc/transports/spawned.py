"""For transports whose ends travel only to a child that `multiprocessing` spawns."""

from __future__ import annotations

import multiprocessing
from abc import abstractmethod
from typing import Any

from scripts.bench.ipc.transports.base import Follower, Transport


class SpawnedTransport(Transport):
    there: Any
    back: Any

    def start(self) -> Follower:
        from scripts.bench.ipc.follower import follow

        process = multiprocessing.get_context("spawn").Process(
            target=follow, args=(self.spec, "", (self.there, self.back)), daemon=True
        )
        process.start()
        return process

    def attach(self, ticket: str) -> None:
        raise NotImplementedError("this transport's ends are handed over by multiprocessing")

    def adopt(self, ends: tuple[Any, Any]) -> None:
        """Follower: what it receives from comes first."""
        self.back, self.there = ends

    @abstractmethod
    def wait(self, seconds: float) -> None: ...
