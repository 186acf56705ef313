"""Hand-overs alone: as many processes as a token passes on its way, which wait as stages do and do nothing else.

The same device, the same rings, the same wake-ups and a socket, at the same pace. What comes late here is late
because the machine woke or ran a process late; no stage has a part in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import uvloop

import ipc
from pipeline.config import load_configuration
from pipeline.runtime.engines import make_runner
from pipeline.runtime.stage import apply_cpu_policy
from pipeline.wire.topology import FRONT, INFERENCE, SAMPLING
from scripts.bench.overhead.device import step_of
from scripts.lab.workers import worker

STAMP = struct.Struct("q")
"""What is handed over: when the device was done, in ns."""


@dataclass(frozen=True, slots=True)
class Chain:
    device: Connection  # is sent how many steps it is to take
    port: int
    pids: dict[str, int]


@contextlib.contextmanager
def chain(file: Path) -> Iterator[Chain]:
    """Of the device in this configuration. Who connects to the port is sent a `STAMP` at once, and one
    for each step from then on."""
    with (
        ipc.SlotRing.create("chain_logits", slots=4, slot_size=64) as logits,
        ipc.ByteRing.create("chain_deltas", capacity=1 << 16) as deltas,
        worker(_serve_front, deltas.handle) as front,
        worker(_serve_sampling, logits.handle, deltas.handle) as sampling,
        worker(_serve_device, file, logits.handle) as device,
    ):
        port, *pids = front.recv(), device.recv(), sampling.recv(), front.recv()
        yield Chain(device, port, dict(zip((INFERENCE.name, SAMPLING.name, FRONT.name), pids, strict=True)))


def _serve_device(file: Path, handle: ipc.RingHandle, pipe: Connection) -> None:
    runner = make_runner(load_configuration(file))
    runner.load()
    runner.warm_up()
    step = step_of(runner, 1, greedy=True)
    with ipc.SlotRing.from_handle(handle) as ring, ring.producer(label=INFERENCE.name) as end:

        def take(steps: int) -> None:
            for _ in range(steps):
                step()
                with end.reserve() as slot:
                    slot.write(STAMP.pack(time.monotonic_ns()))

        pipe.send("ready")
        pipe.send(os.getpid())
        with contextlib.suppress(EOFError):
            while True:
                take(pipe.recv())
    runner.close()


def _serve_sampling(steps: ipc.RingHandle, deltas: ipc.RingHandle, pipe: Connection) -> None:
    apply_cpu_policy(SAMPLING.name, None)
    with (
        ipc.SlotRing.from_handle(steps) as source,
        ipc.ByteRing.from_handle(deltas) as target,
        source.consumer(label=SAMPLING.name, spin_us=0) as reader,
        target.producer(label=SAMPLING.name) as writer,
        contextlib.suppress(ipc.PeerDied, ipc.RingClosed),
    ):
        pipe.send("ready")
        pipe.send(os.getpid())
        while True:
            with reader.read() as slot:
                stamp = bytes(memoryview(slot)[: STAMP.size])
            writer.write(stamp)


def _serve_front(handle: ipc.RingHandle, pipe: Connection) -> None:
    apply_cpu_policy(FRONT.name, None)
    pipe.send("ready")
    uvloop.run(_pass_on(handle, pipe))


async def _pass_on(handle: ipc.RingHandle, pipe: Connection) -> None:
    connected: list[asyncio.WriteTransport] = []

    class Client(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._client = cast("asyncio.WriteTransport", transport)
            self._client.write(STAMP.pack(0))
            connected.append(self._client)

        def connection_lost(self, exc: Exception | None) -> None:
            connected.remove(self._client)

    server = await asyncio.get_running_loop().create_server(Client, "127.0.0.1", 0)
    with ipc.ByteRing.from_handle(handle) as ring, contextlib.suppress(ipc.PeerDied, ipc.RingClosed):
        deltas = ipc.AsyncConsumer(ring, label=FRONT.name)
        pipe.send(server.sockets[0].getsockname()[1])
        pipe.send(os.getpid())
        try:
            while True:
                with await deltas.read() as slot:
                    stamp = bytes(slot)
                for transport in connected:
                    transport.write(stamp)
        finally:
            deltas.close()
    server.close()
