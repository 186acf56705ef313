"""Packages with the same purpose. Each is imported when it is used."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

from ipc import SHM_DIRECTORY
from scripts.bench.ipc.transports.base import (
    WAIT_S,
    Access,
    Channel,
    Fill,
    Touch,
    Transport,
    receive_in_batches,
    send_in_batches,
    touch_run,
)
from scripts.bench.ipc.transports.builtin import Queues


class ZeroMq(Transport):
    """Over a Unix socket: an I/O thread on each side. Zero-copy calls from 64 KiB on, as its manual advises."""

    name = "zeromq"
    title = "pyzmq ipc"
    package = "pyzmq"
    cost = 16
    directory: str | None = None

    def prepare(self) -> str:
        self._open()
        self.directory = tempfile.mkdtemp(prefix="ipc_bench_")
        self.socket.bind(f"ipc://{self.directory}/zmq")
        return f"ipc://{self.directory}/zmq"

    def attach(self, ticket: str) -> None:
        self._open()
        self.socket.connect(ticket)

    def _open(self) -> None:
        import zmq

        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.PAIR)
        self.socket.set_hwm(max(2, min(1000, 2**24 // self.size)))  # bounded: 4 MiB messages would fill the memory

    def wait(self, seconds: float) -> None:
        self.socket.poll(int(seconds * 1000))

    def close(self) -> None:
        self.context.destroy()
        if self.directory:
            shutil.rmtree(self.directory)

    def channel(self, access: Access, fill: Fill, touch: Touch, batch: int) -> Channel:
        socket, data, copies = self.socket, bytes(self.payload), self.size < 2**16

        if copies:
            return Channel(partial(socket.send, data), lambda: touch(socket.recv()))
        return Channel(partial(socket.send, data, copy=False), lambda: touch(socket.recv(copy=False).buffer))


class FasterFifo(Queues):
    """A circular buffer in shared memory behind a process-shared mutex; pickles."""

    name = "faster-fifo"
    title = "faster-fifo"
    package = "faster-fifo"
    batched = ("copy",)
    cost = 16

    def make(self) -> Any:
        from faster_fifo import Queue

        return Queue(max_size_bytes=max(2**20, 4 * self.size))

    def channel(self, access: Access, fill: Fill, touch: Touch, batch: int) -> Channel:
        get, data = self.back.get, bytes(self.payload)
        get_many = partial(self.back.get_many, timeout=WAIT_S, max_messages_to_get=batch)
        return Channel(
            partial(self.there.put, data, timeout=WAIT_S),
            lambda: touch(get(timeout=WAIT_S)),
            send_in_batches(partial(self.there.put_many, [data] * batch, timeout=WAIT_S), batch),
            receive_in_batches(get_many, touch),
        )


class Iceoryx2(Transport):
    """Publish-subscribe: loaned samples in shared memory. Its `receive` does not wait, so a busy pair spins, and a
    pair with pauses uses its event service beside it (notify after send, blocking wait before receive)."""

    name = "iceoryx2"
    title = "iceoryx2"
    package = "iceoryx2"
    accesses = ("in-place",)
    cost = 2

    def prepare(self) -> str:
        name = f"ipc_bench/{os.getpid()}"
        self._open(name, leads=True)
        return name

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


class Subetha(Transport):
    """A ring of 64-byte items in a mapped file, one writer and one reader; what is larger goes into a pool of blocks,
    and the ring carries its index. Its `pop` does not wait, so a busy pair spins, and a pair with pauses uses its
    notifiers beside it (signal after push, blocking wait before pop)."""

    name = "subetha"
    title = "subetha-ipc"
    package = "subetha-ipc"
    batched = ("copy",)
    cost = 2
    directory: str | None = None
    ITEM = 64

    def prepare(self) -> str:
        import subetha

        self.directory = tempfile.mkdtemp(prefix="ipc_bench_", dir=SHM_DIRECTORY)
        self._open(subetha.SpscRing, subetha.FrameRegion, self.directory, leads=True)
        return self.directory

    def attach(self, ticket: str) -> None:
        import subetha

        self._open(subetha.SpscRing.open, subetha.FrameRegion.open, ticket, leads=False)

    def _open(self, ring: Any, blocks: Any, directory: str, *, leads: bool) -> None:
        import subetha

        depth = max(4, min(1024, 2**23 // self.size))
        there, back = ("there", "back") if leads else ("back", "there")
        ways = {}
        for way in ("there", "back"):
            file = f"{directory}/{way}"
            pool: Any = None if self.size <= self.ITEM else blocks(f"{file}-blocks", self.size, depth)
            ways[way] = ring(file, depth), pool, subetha.NotifierSet(f"{file}-notifiers")
        self.out, self.out_blocks, self.out_notifiers = ways[there]
        self.into, self.into_blocks, notifiers = ways[back]
        self.notifier = notifiers.attach()

    def wait(self, seconds: float) -> None:
        self.notifier.wait(seconds)

    def close(self) -> None:
        if self.directory:
            shutil.rmtree(self.directory)

    def channel(self, access: Access, fill: Fill, touch: Touch, batch: int) -> Channel:
        data, size = bytes(self.payload), self.size
        if size <= self.ITEM:
            return Channel(self._sender(lambda: data), self._receiver(touch), *self._buffers(batch))
        write, take = self.out_blocks.write_new, self.into_blocks.take_block

        def item() -> bytes:
            return int(until(lambda: write(data))).to_bytes(8, "little")

        def touch_block(item: bytes) -> object:
            return touch(take(int.from_bytes(item[:8], "little"), size))

        return Channel(self._sender(item), self._receiver(touch_block), *self._lists(item, touch_block, batch))

    def _sender(self, item: Callable[[], bytes]) -> Callable[[], object]:
        push, signal, sleeps = self.out.push, self.out_notifiers.signal, self.spec.sleeps

        def send() -> None:
            message = item()
            while not push(message):
                pass
            if sleeps:
                signal()

        return send

    def _receiver(self, touch: Touch) -> Callable[[], object]:
        pop, notifier, sleeps = self.into.pop, self.notifier, self.spec.sleeps

        def receive() -> object:
            while (item := pop()) is None:
                if sleeps:
                    notifier.wait(WAIT_S)
                    notifier.drain()
            return touch(item)

        return receive

    def _buffers(self, batch: int) -> tuple[Callable[[int], None], Callable[[int], None]]:
        """Items side by side in one buffer per call: its fastest way."""
        push, pop, size, run = self.out.push_buffer, self.into.pop_buffer, self.size, bytes(self.payload) * batch

        def send_run(count: int) -> None:
            while count:
                count -= push(run[: min(batch, count) * size], size)

        def receive_run(count: int) -> None:
            while count:
                items, got = pop(batch)
                if got:
                    touch_run(items)
                    count -= got

        return send_run, receive_run

    def _lists(
        self, item: Callable[[], bytes], touch: Touch, batch: int
    ) -> tuple[Callable[[int], None], Callable[[int], None]]:
        def send() -> None:
            items = [item() for _ in range(batch)]
            while items:
                del items[: self.out.push_many(items)]

        return send_in_batches(send, batch), receive_in_batches(partial(self.into.pop_many, batch), touch)


def until(attempt: Callable[[], Any]) -> Any:
    """What it gives as soon as that is not None."""
    while (result := attempt()) is None:
        pass
    return result
