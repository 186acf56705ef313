"""TCP over the loopback device, with TCP_NODELAY."""

from __future__ import annotations

import select
import socket

from scripts.bench.ipc.payload import Fill, Touch
from scripts.bench.ipc.spec import Access
from scripts.bench.ipc.transports.base import Channel, Transport


class Tcp(Transport):
    name = "tcp"
    title = "TCP loopback"
    cost = 4

    def prepare(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))

    def ticket(self) -> str:
        return str(self.listener.getsockname()[1])

    def connect(self) -> None:
        self._adopt(self.listener.accept()[0])

    def attach(self, ticket: str) -> None:
        self._adopt(socket.create_connection(("127.0.0.1", int(ticket))))

    def _adopt(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection

    def wait(self, seconds: float) -> None:
        select.select([self.socket], [], [], seconds)

    def channel(self, access: Access, fill: Fill, touch: Touch, batch: int) -> Channel:
        sendall, recv_into, data, size = self.socket.sendall, self.socket.recv_into, bytes(self.payload), self.size
        buffer = memoryview(bytearray(size))

        def send() -> None:
            sendall(data)

        def receive() -> object:
            got = recv_into(buffer)
            while got < size:
                more = recv_into(buffer[got:])
                if not more:
                    raise ConnectionError("the other side closed the connection")
                got += more
            return touch(buffer)

        return Channel(send, receive)
