"""Something that reads all that is sent to it and answers nothing useful: what an attacker costs by itself."""

from __future__ import annotations

import asyncio
import re
import socket
from multiprocessing.connection import Connection
from typing import cast

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_END = b"\r\n\r\n"


class Sink(asyncio.Protocol):
    """One connection, one request. Its body is counted and not kept."""

    def __init__(self) -> None:
        self._head = b""
        self._missing: int | None = None  # bytes of the body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._missing is None:
            self._head += data
            head, end, data = self._head.partition(_END)
            if not end:
                return
            found = _LENGTH.search(head)
            self._missing = int(found[1]) if found else 0
        self._missing -= len(data)
        if self._missing <= 0:
            self._transport.write(_ANSWER)
            self._transport.close()


def serve_sink(pipe: Connection) -> None:
    """Says "ready", then answers whatever is asked through the pipe with its port, until that is closed."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    pipe.send("ready")
    asyncio.run(_serve(pipe, listener))


async def _serve(pipe: Connection, listener: socket.socket) -> None:
    async with await asyncio.get_running_loop().create_server(Sink, sock=listener):
        while True:
            try:
                await asyncio.to_thread(pipe.recv)
            except EOFError:
                return
            pipe.send(listener.getsockname()[1])
