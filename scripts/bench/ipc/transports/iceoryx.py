"""iceoryx2 publish-subscribe: loaned samples in shared memory. Its `receive` does not wait, so a busy pair spins, and
a pair with pauses uses its event service beside it (notify after send, blocking wait before receive)."""

from __future__ import annotations

import ctypes
import os
from typing import Any

from scripts.bench.ipc.payload import Fill, Touch
from scripts.bench.ipc.spec import Access
from scripts.bench.ipc.transports.base import Channel, Transport


class Iceoryx2(Transport):
    name = "iceoryx2"
    title = "iceoryx2"
    package = "iceoryx2"
    accesses = ("in-place",)
    cost = 2

    def prepare(self) -> None:
        self._open(f"ipc_bench/{os.getpid()}", leads=True)

    def ticket(self) -> str:
        return f"ipc_bench/{os.getpid()}"

    def attach(self, ticket: str) -> None:
        self._open(ticket, leads=False)

    def _open(self, name: str, *, leads: bool) -> None:
        import iceoryx2

        iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
        self.node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Ipc)
        depth = max(2, min(64, 2**23 // self.size))
        message = type("Message", (ctypes.Structure,), {"_fields_": [("words", ctypes.c_uint64 * (self.size // 8))]})

        def service(way: str) -> Any:
            builder = self.node.service_builder(iceoryx2.ServiceName.new(f"{name}/{way}")).publish_subscribe(message)
            return builder.enable_safe_overflow(False).subscriber_max_buffer_size(depth).open_or_create()

        def event(way: str) -> Any:
            return self.node.service_builder(iceoryx2.ServiceName.new(f"{name}/{way}")).event().open_or_create()

        out, into = ("there", "back") if leads else ("back", "there")
        retry = iceoryx2.BackpressureStrategy.RetryUntilDelivered
        self.subscriber = service(into).subscriber_builder().create()
        self.publisher = service(out).publisher_builder().backpressure_strategy(retry).create()
        self.listener = event(into).listener_builder().create()
        self.notifier = event(out).notifier_builder().create()
        self.duration = iceoryx2.Duration.from_millis

    def wait(self, seconds: float) -> None:
        self.listener.timed_wait(self.duration(int(seconds * 1000)))

    def channel(self, access: Access, fill: Fill, touch: Touch, batch: int) -> Channel:
        loan, take, memory = self.publisher.loan_uninit, self.subscriber.receive, ctypes.c_char * self.size
        notify, sleep, sleeps = self.notifier.notify, self.listener.blocking_wait, self.spec.sleeps

        def send() -> None:
            sample = loan()
            fill(memory.from_address(sample.payload_ptr))
            sample.assume_init().send()
            if sleeps:
                notify()

        def receive() -> object:
            while (sample := take()) is None:
                if sleeps:
                    sleep()
            touched = touch(memory.from_address(sample.payload_ptr))
            sample.delete()
            return touched

        return Channel(send, receive)
