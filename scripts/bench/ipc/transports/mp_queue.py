"""`multiprocessing.Queue`: a pipe behind a lock and a feeder thread; pickles."""

from __future__ import annotations

import contextlib
import multiprocessing
import queue

from scripts.bench.ipc.payload import Fill, Touch
from scripts.bench.ipc.spec import Access
from scripts.bench.ipc.transports.base import WAIT_S, Channel
from scripts.bench.ipc.transports.spawned import SpawnedTransport


class MpQueue(SpawnedTransport):
    name = "queue"
    title = "multiprocessing.Queue"
    cost = 16

    def prepare(self) -> None:
        context = multiprocessing.get_context("spawn")
        depth = max(2, min(1024, 2**23 // self.size))  # bounded: 4 MiB messages would fill the memory
        self.there, self.back = context.Queue(depth), context.Queue(depth)

    def wait(self, seconds: float) -> None:
        with contextlib.suppress(queue.Empty):
            self.back.get(timeout=seconds)

    def channel(self, access: Access, fill: Fill, touch: Touch, batch: int) -> Channel:
        put, get, data = self.there.put, self.back.get, bytes(self.payload)

        def send() -> None:
            put(data)

        def receive() -> object:
            return touch(get(timeout=WAIT_S))

        return Channel(send, receive)
