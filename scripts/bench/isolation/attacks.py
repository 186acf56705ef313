"""How requests are sent to hurt: one after the other, on many connections, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

HOST = "127.0.0.1"
_PART = 1 << 16
_HEAD = 16  # bytes that tell the status
_RETRY_S = 0.05  # where no connection is to be had
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, no time

Pace = Sequence[Sequence[float]]
"""For each client, when each of its requests is sent, in seconds since the attack began."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One request. `status` 0: no answer came, or the attack was over before."""

    client: int
    begin_s: float  # of the monotonic clock, which all processes share
    end_s: float
    status: int


@dataclass(slots=True)
class Field:
    """Where an attack takes place. With a `pace` requests are sent at those times, else as soon as they can be."""

    port: int
    requests: Sequence[bytes]
    pace: Pace | None = None
    begin_s: float = 0.0
    sent: list[Sent] = field(default_factory=list)
    _open: dict[socket.socket, None] = field(default_factory=dict)

    @property
    def connections(self) -> list[socket.socket]:
        """That are open."""
        return [*self._open]

    async def connect(self, receive_buffer: int | None = None) -> socket.socket:
        """Raises OSError."""
        made = socket.socket()
        self._open[made] = None
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(made, (HOST, self.port))
        return made

    @contextlib.asynccontextmanager
    async def noted(self, client: int) -> AsyncIterator[bytearray]:
        """One request; where it fails a moment passes. The beginning of its answer goes into what is yielded."""
        begin_s, head = time.monotonic(), bytearray()
        try:
            yield head
        except OSError:
            await asyncio.sleep(_RETRY_S)
        finally:
            self.sent.append(Sent(client, begin_s, time.monotonic(), status_of(head)))

    def drop(self, made: socket.socket, *, reset: bool = False) -> None:
        if reset:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._open.pop(made, None)
        made.close()

    def close(self) -> None:
        for made in self.connections:
            self.drop(made)

    async def is_due(self, client: int, number: int) -> bool:
        """Wait for the time of that request; False where there is none."""
        if self.pace is None:
            await asyncio.sleep(0)
            return True
        if client >= len(self.pace) or number >= len(self.pace[client]):
            return False
        await asyncio.sleep(max(0.0, self.begin_s + self.pace[client][number] - time.monotonic()))
        return True

    def request(self, number: int) -> bytes:
        return self.requests[number % len(self.requests)]


class Attack(ABC):
    """`prepare` before the attack, `run` until it is cancelled or has sent all that its pace has."""

    __slots__ = ()

    async def prepare(self, field: Field) -> None:  # noqa: B027 - most need nothing
        """Nothing has to be there before."""

    @abstractmethod
    async def run(self, field: Field) -> None: ...


class _Clients(Attack):
    """So many at once, each of which takes one turn after the other."""

    __slots__ = ()
    clients: int

    async def run(self, field: Field) -> None:
        await asyncio.gather(*(self._client(field, client) for client in range(self.clients)))

    async def _client(self, field: Field, client: int) -> None:
        for number in itertools.count():
            if not await field.is_due(client, number):
                return
            await self._turn(field, client, number)

    @abstractmethod
    async def _turn(self, field: Field, client: int, number: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Repeat(_Clients):
    """The next request as soon as the answer is in. With `pause_s` a byte at a time, so far apart."""

    clients: int = 1
    pause_s: float | None = None

    async def _turn(self, field: Field, client: int, number: int) -> None:
        made = None
        try:
            async with field.noted(client) as head:
                made = await field.connect()
                with contextlib.suppress(OSError):  # it may be refused before it is whole
                    await self._send(made, field.request(client + number))
                await _read(made, head)
        finally:
            if made is not None:
                field.drop(made)

    async def _send(self, made: socket.socket, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        if self.pause_s is None:
            return await loop.sock_sendall(made, request)
        for i in range(len(request)):
            await loop.sock_sendall(made, request[i : i + 1])
            await asyncio.sleep(self.pause_s)
        return None


@dataclass(frozen=True, slots=True)
class Stay(Attack):
    """Many connections that stay. Each sends a request and reads the answer, so many bytes at a time; with `early`
    all answers have begun before the attack does."""

    connections: int
    early: bool = False
    part: int = _PART
    pause_s: float = 0.0
    receive_buffer: int | None = None

    async def prepare(self, field: Field) -> None:
        if self.early:
            await asyncio.gather(*(self._begin(field, number) for number in range(self.connections)))

    async def run(self, field: Field) -> None:
        if self.early:
            reading = [self._read_on(made, bytearray()) for made in field.connections]
            await asyncio.gather(*reading, return_exceptions=True)
        else:
            await asyncio.gather(*(self._stay(field, number) for number in range(self.connections)))
        await asyncio.Event().wait()  # connections stay open until the attack is over

    async def _begin(self, field: Field, number: int) -> None:
        """Raises OSError where the server closes the connection, or there is none."""
        async with field.noted(number) as head:
            made = await self._sent(field, number)
            head.extend(await asyncio.get_running_loop().sock_recv(made, _HEAD))
        if not head:
            raise ConnectionResetError(f"stream {number} was not begun")

    async def _stay(self, field: Field, number: int) -> None:
        async with field.noted(number) as head:
            await self._read_on(await self._sent(field, number), head)

    async def _sent(self, field: Field, number: int) -> socket.socket:
        made = await field.connect(self.receive_buffer)
        await asyncio.get_running_loop().sock_sendall(made, field.request(number))
        return made

    async def _read_on(self, made: socket.socket, head: bytearray) -> None:
        await _read(made, head, self.part, self.pause_s)


@dataclass(frozen=True, slots=True)
class Churn(_Clients):
    """Connections that are opened and closed, half of them by a reset."""

    clients: int = 4

    async def _turn(self, field: Field, client: int, number: int) -> None:
        async with field.noted(client):
            field.drop(await field.connect(), reset=number % 2 == 1)


async def _read(made: socket.socket, head: bytearray, part: int = _PART, pause_s: float | None = None) -> None:
    """All of an answer; `head` becomes what came first of it. Raises OSError."""
    while read := await asyncio.get_running_loop().sock_recv(made, part):
        head += read[: _HEAD - len(head)]
        if pause_s is not None:
            await asyncio.sleep(pause_s)


def status_of(head: bytes | bytearray) -> int:
    """Of an answer's beginning; 0 if that is none."""
    words = head.split(None, 2)
    return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit() else 0
