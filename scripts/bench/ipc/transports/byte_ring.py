"""`ipc.ByteRing`: records of any length, one ring each way."""

from __future__ import annotations

import contextlib

from ipc import ByteConsumer, ByteProducer, ByteRing, RingHandle, RingTimeout
from scripts.bench.ipc.payload import Fill, Touch
from scripts.bench.ipc.spec import Access
from scripts.bench.ipc.transports.base import WAIT_S, Channel, Transport


class ByteRingTransport(Transport):
    name = "byte-ring"
    title = "ring (bytes)"
    accesses = ("in-place", "copy")
    batched = ("copy",)

    def prepare(self) -> None:
        capacity = max(2**18, 1 << (2 * self.size + 15).bit_length())  # a record takes at most half of the ring
        self.there = ByteRing.create("bench_there", capacity=capacity)
        self.back = ByteRing.create("bench_back", capacity=capacity)
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
        self.there, self.back = (ByteRing.from_handle(RingHandle.from_text(text)) for text in ticket.split())
        self.consumer = self.there.consumer(label="follower", spin_us=self.spec.spin_us)
        self.producer = self.back.producer(label="follower", spin_us=self.spec.spin_us)

    def wait(self, seconds: float) -> None:
        with contextlib.suppress(RingTimeout):
            self.consumer.read(seconds)

    def channel(self, access: Access, fill: Fill, touch: Touch, batch: int) -> Channel:
        if access == "copy":
            return _copying(self.producer, self.consumer, self.payload, touch, batch)
        return _in_place(self.producer, self.consumer, self.size, fill, touch)


def _copying(producer: ByteProducer, consumer: ByteConsumer, payload: bytearray, touch: Touch, batch: int) -> Channel:
    write, read_bytes, data = producer.write, consumer.read_bytes, bytes(payload)
    records = [data] * batch

    def send() -> None:
        write(data)

    def receive() -> object:
        return touch(read_bytes())

    def send_run(count: int) -> None:
        for _ in range(count // batch):
            producer.write_many(records)

    def receive_run(count: int) -> None:
        while count:
            got = consumer.read_many(batch)
            for record in got:
                touch(record)
            count -= len(got)

    return Channel(send, receive, send_run, receive_run)


def _in_place(producer: ByteProducer, consumer: ByteConsumer, size: int, fill: Fill, touch: Touch) -> Channel:
    reserve, read = producer.reserve, consumer.read

    def send() -> None:
        slot = reserve(size)
        fill(memoryview(slot))
        slot.publish()

    def receive() -> object:
        slot = read()
        touched = touch(memoryview(slot))
        slot.release()
        return touched

    return Channel(send, receive)
