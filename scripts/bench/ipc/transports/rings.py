"""`ipc`: `SlotRing` (fixed slots) and `ByteRing` (records of any length), one each way, and the raw limit in C."""

from __future__ import annotations

import contextlib
import mmap
import os
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ipc import ByteRing, RingHandle, RingTimeout, SlotConsumer, SlotProducer, SlotRing, _core
from scripts.bench.ipc.transports.base import (
    WAIT_S,
    Access,
    Channel,
    Fill,
    Job,
    Touch,
    Transport,
    fill_run,
    receive_in_batches,
    send_in_batches,
    touch_run,
)


class _Rings(Transport):
    accesses = ("in-place", "copy")
    ring: ClassVar[Any]

    @abstractmethod
    def capacity(self) -> dict[str, int]: ...

    def prepare(self) -> list[RingHandle]:
        self.rings = [self.ring.create(name, **self.capacity()) for name in ("bench_there", "bench_back")]
        self._open("leader", *self.rings)
        return [ring.handle for ring in self.rings]

    def connect(self) -> None:
        for ring in self.rings:
            ring.unlink_when_attached(WAIT_S)

    def attach(self, ticket: list[RingHandle]) -> None:
        self.rings = [self.ring.from_handle(handle) for handle in ticket]
        self._open("follower", *reversed(self.rings))

    def _open(self, label: str, there: Any, back: Any) -> None:
        self.producer = there.producer(label=label, spin_us=self.spec.spin_us)
        self.consumer = back.consumer(label=label, spin_us=self.spec.spin_us)

    def wait(self, seconds: float) -> None:
        with contextlib.suppress(RingTimeout):
            self.consumer.read(seconds)


class SlotRingTransport(_Rings):
    name = "ring"
    title = "ring (slots)"
    batched = ("in-place", "copy")
    ring = SlotRing

    def capacity(self) -> dict[str, int]:
        # As many as stay in a core's cache, as far as that goes
        return {"slots": max(4, min(1024, 2**18 // self.size)), "slot_size": self.size}

    def channel(self, access: Access, fill: Fill, touch: Touch, batch: int) -> Channel:
        if access == "copy":
            return self._copying(touch, batch)
        return _slots_in_place(self.producer, self.consumer, fill, touch, batch)

    def _copying(self, touch: Touch, batch: int) -> Channel:
        consumer, size, data = self.consumer, self.size, bytes(self.payload)
        read_bytes, into = consumer.read_bytes, memoryview(bytearray(size * batch))

        def receive_run(count: int) -> None:
            while count:
                got = consumer.read_into(into)
                touch_run(into[: got * size])
                count -= got

        send_run = send_in_batches(partial(self.producer.write_batch, data * batch), batch)
        return Channel(partial(self.producer.write, data), lambda: touch(read_bytes()), send_run, receive_run)


class ByteRingTransport(_Rings):
    name = "byte-ring"
    title = "ring (bytes)"
    batched = ("copy",)
    ring = ByteRing

    def capacity(self) -> dict[str, int]:
        # A record takes at most half of the ring
        return {"capacity": max(2**18, 1 << (2 * self.size + 15).bit_length())}

    def channel(self, access: Access, fill: Fill, touch: Touch, batch: int) -> Channel:
        reserve, read_bytes = self.producer.reserve, self.consumer.read_bytes
        size, data = self.size, bytes(self.payload)
        if access == "copy":
            send_run = send_in_batches(partial(self.producer.write_many, [data] * batch), batch)
            receive_run = receive_in_batches(partial(self.consumer.read_many, batch), touch)
            return Channel(partial(self.producer.write, data), lambda: touch(read_bytes()), send_run, receive_run)

        def send() -> None:
            slot = reserve(size)
            fill(memoryview(slot))
            slot.publish()

        return Channel(send, _reading(self.consumer, touch))


def _reading(consumer: Any, touch: Touch) -> Callable[[], object]:
    read = consumer.read

    def receive() -> object:
        slot = read()
        touched = touch(memoryview(slot))
        slot.release()
        return touched

    return receive


def _slots_in_place(producer: SlotProducer, consumer: SlotConsumer, fill: Fill, touch: Touch, batch: int) -> Channel:
    reserve = producer.reserve

    def send() -> None:
        slot = reserve()
        fill(memoryview(slot))
        slot.publish()

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

    return Channel(send, _reading(consumer, touch), send_run, receive_run)


# ---- the raw limit: the same ping-pong in C, one word each way, nothing of Python between two messages ------------


class _Raw(Transport):
    """One job per pair: the two words must be zero when a job begins."""

    parks: ClassVar[bool]

    def prepare(self) -> Path:
        fd = os.memfd_create("ipc_bench_raw")
        os.ftruncate(fd, mmap.PAGESIZE)
        self.map = mmap.mmap(fd, mmap.PAGESIZE)
        return Path(f"/proc/{os.getpid()}/fd/{fd}")

    def attach(self, ticket: Path) -> None:
        with ticket.open("r+b") as memory:
            self.map = mmap.mmap(memory.fileno(), mmap.PAGESIZE)

    def channel(self, access: Access, fill: Fill, touch: Touch, batch: int) -> Channel:
        return Channel(lambda: None, lambda: touch(self.payload))

    def wait(self, seconds: float) -> None:
        raise NotImplementedError("the raw limit is not measured idle")

    def greet(self, channel: Channel, *, leads: bool) -> None:
        pass

    def round_trips_ns(self, channel: Channel, job: Job) -> list[int]:
        times = self._run(job, lead=True)
        return [int(ns) for ns in np.frombuffer(times, np.int64)]

    def answer(self, channel: Channel, job: Job) -> None:
        self._run(job, lead=False)

    def _run(self, job: Job, *, lead: bool) -> bytes:
        pause_us = job.pause_us if lead else 0.0
        return _core.raw_ping_pong(self.map, job.count, lead=lead, park=self.parks, pause_us=pause_us, timeout=WAIT_S)


class RawSpin(_Raw):
    name = "raw-spin"
    title = "raw C, spinning"
    parks = False


class RawFutex(_Raw):
    name = "raw-futex"
    title = "raw C, futex"
    cost = 8
    parks = True
