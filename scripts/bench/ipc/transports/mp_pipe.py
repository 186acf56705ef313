"""`multiprocessing.Pipe`: a socket pair, bytes without pickling."""

from __future__ import annotations

from multiprocessing import Pipe
from multiprocessing.connection import Connection

from scripts.bench.ipc.payload import Fill, Touch
from scripts.bench.ipc.spec import Access
from scripts.bench.ipc.transports.base import Channel, Transport


class MpPipe(Transport):
    name = "pipe"
    title = "multiprocessing.Pipe"
    cost = 4

    def prepare(self) -> None:
        self.connection, self.other = Pipe()

    def ticket(self) -> str:
        return str(self.other.fileno())

    def fds(self) -> tuple[int, ...]:
        return (self.other.fileno(),)

    def connect(self) -> None:
        self.other.close()  # so that a follower that dies is an end of file

    def attach(self, ticket: str) -> None:
        self.connection = Connection(int(ticket))

    def wait(self, seconds: float) -> None:
        self.connection.poll(seconds)

    def channel(self, access: Access, fill: Fill, touch: Touch, batch: int) -> Channel:
        send_bytes, recv_bytes, data = self.connection.send_bytes, self.connection.recv_bytes, bytes(self.payload)

        def send() -> None:
            send_bytes(data)

        def receive() -> object:
            return touch(recv_bytes())

        return Channel(send, receive)
