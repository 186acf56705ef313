"""`ipc.SlotRing`: fixed slots, one ring each way."""

from __future__ import annotations

import contextlib
from typing import Any

from ipc import RingHandle, RingTimeout, SlotConsumer, SlotProducer, SlotRing
from scripts.bench.ipc.payload import Fill, Touch, fill_run, touch_run
from scripts.bench.ipc.spec import Access
from scripts.bench.ipc.transports.base import WAIT_S, Channel, Transport


class SlotRingTransport(Transport):
    name = "ring"
    title = "ring (slots)"
    accesses = ("in-place", "copy")
    batched = ("in-place", "copy")

    def prepare(self) -> None:
        slots = max(4, min(1024, 2**18 // self.size))  # as many as stay in a core's cache, as far as that goes
        self.there = SlotRing.create("bench_there", slots=slots, slot_size=self.size)
        self.back = SlotRing.create("bench_back", slots=slots, slot_size=self.size)
        self.producer = self.there.producer(label="leader", spin_us=self.spec.spin_us)
        self.consumer = self.back.consumer(label="leader", spin_us=self.spec.spin_us)

    def connect(self) -> None:
        self.there.unlink_when_attached(WAIT_S)
        self.back.unlink_when_attached(WAIT_S)

    def ticket(self) -> str:
        return f"{self.there.handle.to_text()} {self.back.handle.to_text()}"

    def fds(self) -> tuple[int, ...]:
        return self.there.handle.fds + self.back.handle.fds

    def attach(self, ticket: str) -> None:
        self.there, self.back = (SlotRing.from_handle(RingHandle.from_text(text)) for text in ticket.split())
        self.consumer = self.there.consumer(label="follower", spin_us=self.spec.spin_us)
        self.producer = self.back.producer(label="follower", spin_us=self.spec.spin_us)

    def wait(self, seconds: float) -> None:
        with contextlib.suppress(RingTimeout):
            self.consumer.read(seconds)

    def channel(self, access: Access, fill: Fill, touch: Touch, batch: int) -> Channel:
        if access == "copy":
            return _copying(self.producer, self.consumer, self.payload, touch, batch)
        return _in_place(self.producer, self.consumer, fill, touch, batch)


def _copying(producer: SlotProducer, consumer: SlotConsumer, payload: bytearray, touch: Touch, batch: int) -> Channel:
    write, read_bytes, data = producer.write, consumer.read_bytes, bytes(payload)
    size, run = len(payload), data * batch
    into = memoryview(bytearray(len(payload) * batch))

    def send() -> None:
        write(data)

    def receive() -> object:
        return touch(read_bytes())

    def send_run(count: int) -> None:
        for _ in range(count // batch):
            producer.write_batch(run)

    def receive_run(count: int) -> None:
        while count:
            got = consumer.read_into(into)
            touch_run(into[: got * size])
            count -= got

    return Channel(send, receive, send_run, receive_run)


def _in_place(producer: SlotProducer, consumer: SlotConsumer, fill: Fill, touch: Touch, batch: int) -> Channel:
    reserve, read = producer.reserve, consumer.read

    def send() -> None:
        slot = reserve()
        fill(memoryview(slot))
        slot.publish()

    def receive() -> Any:
        slot = read()
        touched = touch(memoryview(slot))
        slot.release()
        return touched

    def send_run(count: int) -> None:
        while count:
            run = producer.reserve_batch(min(count, batch))
            fill_run(run)
            count -= run.count
            run.publish()

    def receive_run(count: int) -> None:
        while count:
            run = consumer.read_batch(min(count, batch))
            touch_run(run)
            count -= run.count
            run.release()

    return Channel(send, receive, send_run, receive_run)
