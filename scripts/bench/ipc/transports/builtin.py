"""What Python brings: TCP over the loopback device, `multiprocessing.Pipe`, `multiprocessing.Queue`."""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import select
import socket
from abc import abstractmethod
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from scripts.bench.ipc.transports.base import WAIT_S, Access, Channel, Fill, Touch, Transport


class Tcp(Transport):
    """With TCP_NODELAY."""

    name = "tcp"
    title = "TCP loopback"
    cost = 4

    def prepare(self) -> Any:
        self.listener = socket.create_server(("127.0.0.1", 0))
        return self.listener.getsockname()

    def connect(self) -> None:
        self._adopt(self.listener.accept()[0])

    def attach(self, ticket: tuple[str, int]) -> None:
        self._adopt(socket.create_connection(ticket))

    def _adopt(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection

    def wait(self, seconds: float) -> None:
        select.select([self.socket], [], [], seconds)

    def channel(self, access: Access, fill: Fill, touch: Touch, batch: int) -> Channel:
        recv_into, size = self.socket.recv_into, self.size
        buffer = memoryview(bytearray(size))

        def receive() -> object:
            got = recv_into(buffer)
            while got < size:
                more = recv_into(buffer[got:])
                if not more:
                    raise ConnectionError("the other side closed the connection")
                got += more
            return touch(buffer)

        return Channel(partial(self.socket.sendall, bytes(self.payload)), receive)


class MpPipe(Transport):
    """A socket pair, bytes without pickling."""

    name = "pipe"
    title = "multiprocessing.Pipe"
    cost = 4

    def prepare(self) -> Connection:
        self.connection, self.other = multiprocessing.Pipe()
        return self.other

    def connect(self) -> None:
        self.other.close()  # so that a follower that dies is an end of file

    def attach(self, ticket: Connection) -> None:
        self.connection = ticket

    def wait(self, seconds: float) -> None:
        self.connection.poll(seconds)

    def channel(self, access: Access, fill: Fill, touch: Touch, batch: int) -> Channel:
        recv_bytes = self.connection.recv_bytes
        return Channel(partial(self.connection.send_bytes, bytes(self.payload)), lambda: touch(recv_bytes()))


class Queues(Transport):
    """One each way, which travel only to a child that `multiprocessing` spawns."""

    there: Any
    back: Any

    @abstractmethod
    def make(self) -> Any:
        """A queue. Raises ImportError."""

    def prepare(self) -> tuple[Any, Any]:
        self.there, self.back = self.make(), self.make()
        return self.there, self.back

    def attach(self, ticket: tuple[Any, Any]) -> None:
        self.back, self.there = ticket

    def wait(self, seconds: float) -> None:
        with contextlib.suppress(queue.Empty):
            self.back.get(timeout=seconds)


class MpQueue(Queues):
    """A pipe behind a lock and a feeder thread; pickles."""

    name = "queue"
    title = "multiprocessing.Queue"
    cost = 16

    def make(self) -> Any:
        # Bounded: 4 MiB messages would fill the memory
        return multiprocessing.get_context("spawn").Queue(max(2, min(1024, 2**23 // self.size)))

    def channel(self, access: Access, fill: Fill, touch: Touch, batch: int) -> Channel:
        get = self.back.get
        return Channel(partial(self.there.put, bytes(self.payload)), lambda: touch(get(timeout=WAIT_S)))
