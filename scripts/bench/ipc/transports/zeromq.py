"""pyzmq over a Unix socket: an I/O thread on each side. Zero-copy calls from 64 KiB on, as its manual advises."""

from __future__ import annotations

import shutil
import tempfile

from scripts.bench.ipc.payload import Fill, Touch
from scripts.bench.ipc.spec import Access
from scripts.bench.ipc.transports.base import Channel, Transport


class ZeroMq(Transport):
    name = "zeromq"
    title = "pyzmq ipc"
    package = "pyzmq"
    cost = 16
    directory: str | None = None

    def prepare(self) -> None:
        self._open()
        self.directory = tempfile.mkdtemp(prefix="ipc_bench_")
        self.socket.bind(self.ticket())

    def ticket(self) -> str:
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

        def send_copy() -> None:
            socket.send(data)

        def receive_copy() -> object:
            return touch(socket.recv())

        def send_frame() -> None:
            socket.send(data, copy=False)

        def receive_frame() -> object:
            return touch(socket.recv(copy=False).buffer)

        return Channel(send_copy, receive_copy) if copies else Channel(send_frame, receive_frame)
