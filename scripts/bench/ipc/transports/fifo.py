"""faster-fifo: a circular buffer in shared memory behind a process-shared mutex; pickles."""

from __future__ import annotations

import contextlib
import queue

from scripts.bench.ipc.payload import Fill, Touch
from scripts.bench.ipc.spec import Access
from scripts.bench.ipc.transports.base import WAIT_S, Channel
from scripts.bench.ipc.transports.spawned import SpawnedTransport


class FasterFifo(SpawnedTransport):
    name = "faster-fifo"
    title = "faster-fifo"
    package = "faster-fifo"
    batched = ("copy",)
    cost = 16

    def prepare(self) -> None:
        from faster_fifo import Queue

        self.there, self.back = (Queue(max_size_bytes=max(2**20, 4 * self.size)) for _ in range(2))

    def wait(self, seconds: float) -> None:
        with contextlib.suppress(queue.Empty):
            self.back.get(timeout=seconds)

    def channel(self, access: Access, fill: Fill, touch: Touch, batch: int) -> Channel:
        put, get, data = self.there.put, self.back.get, bytes(self.payload)
        messages = [data] * batch

        def send() -> None:
            put(data, timeout=WAIT_S)

        def receive() -> object:
            return touch(get(timeout=WAIT_S))

        def send_run(count: int) -> None:
            for _ in range(count // batch):
                self.there.put_many(messages, timeout=WAIT_S)

        def receive_run(count: int) -> None:
            while count:
                got = self.back.get_many(timeout=WAIT_S, max_messages_to_get=batch)
                for message in got:
                    touch(message)
                count -= len(got)

        return Channel(send, receive, send_run, receive_run)
