"""The client's end of HTTP/1.1: asyncio's protocols on uvloop, with httptools' parser in C.

It shares its CPUs with the server, so it does as little as it can for each token: it cuts lines and notes when they
came. What they say is looked at when all is over.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import SplitResult, urlsplit

import httptools

from scripts.lab.errors import BenchError
from scripts.lab.lines import LineSplitter


@dataclass(slots=True)
class Reply:
    """What came back, with the time of every line in nanoseconds of the monotonic clock."""

    status: int
    times_ns: list[int]
    lines: list[bytes]
    headers: dict[bytes, bytes] = field(default_factory=dict)  # names in lower case

    @property
    def body(self) -> bytes:
        return b"\n".join(self.lines)


Watch = Callable[[Reply], bool]
"""Sees an answer each time that more of it has come; where it says True the client has enough and goes away."""


class StaleConnectionError(OSError):
    """The connection was closed before any byte of an answer had come."""


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self.usable = True
        self._transport: asyncio.Transport | None = None
        self._idle()

    def _idle(self, watch: Watch | None = None) -> None:
        self._now, self._watch = 0, watch
        self._reply = Reply(0, [], [])
        self._splitter = LineSplitter()
        self._complete: asyncio.Future[Reply] | None = None
        self._delimited = False
        self._parser = httptools.HttpResponseParser(self)

    async def ask(self, request: bytes, watch: Watch | None = None) -> Reply:
        """Raises OSError when the connection ends before the answer does."""
        assert self._transport is not None
        self._idle(watch)
        complete: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._complete = complete
        self._transport.write(request)
        return await complete

    def close(self) -> None:
        """What else comes, or had begun to come, is nobody's business."""
        self.usable = False
        self._idle()
        if self._transport is not None:
            self._transport.abort()

    # ---- asyncio.Protocol -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by name

    def data_received(self, data: bytes) -> None:
        self._now = time.monotonic_ns()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(OSError(f"the server's answer is no HTTP: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        if error is None and self._reply.status and not self._delimited:
            self.on_message_complete()  # nothing else marks the end of such a body
        kind = OSError if self._now else StaleConnectionError
        self._fail(kind(f"the connection was lost: {error}" if error else "the server closed the connection"))

    # ---- httptools ------------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self._reply.headers[name.lower()] = value
        self._delimited |= name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        self._reply.status = self._parser.get_status_code()

    def on_body(self, part: bytes) -> None:
        self._add(self._splitter.feed(part))

    def on_message_complete(self) -> None:
        self._add(self._splitter.finish())
        self.usable = self._delimited and self._parser.should_keep_alive()
        self._finish()

    def _add(self, lines: list[bytes]) -> None:
        if lines:
            self._reply.lines += lines
            self._reply.times_ns += [self._now] * len(lines)
            if self._watch is not None and self._watch(self._reply):
                self._finish()
                self.close()

    def _finish(self) -> None:
        if self._complete is not None and not self._complete.done():
            self._complete.set_result(self._reply)

    def _fail(self, error: OSError) -> None:
        if self._complete is not None and not self._complete.done():
            self._complete.set_exception(error)


class Client:
    """Requests to one server. With `keep_alive` connections that have answered are used again."""

    def __init__(self, base_url: str, *, headers: tuple[tuple[str, str], ...] = (), keep_alive: bool = True) -> None:
        self._url = _checked(base_url)
        self._keep_alive = keep_alive
        self._ssl = ssl.create_default_context() if self._url.scheme == "https" else None
        self._port = self._url.port or (443 if self._ssl else 80)
        self._host = host = self._url.hostname or ""
        fields = (("host", f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}"), *headers)
        if not keep_alive:
            fields = (*fields, ("connection", "close"))
        self._head = "".join(f"{name}: {value}\r\n" for name, value in fields)
        self._free: list[Connection] = []

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The bytes of a request, so that making them need not cost time when it is sent."""
        return message(method, f"{self._url.path.rstrip('/')}{path}", body, self._head)

    async def send(self, request: bytes, watch: Watch | None = None) -> Reply:
        """Raises OSError where there is no answer, or no whole one."""
        while (connection := self._used()) is not None:
            try:
                return await self._ask(connection, request, watch)
            except StaleConnectionError:
                continue  # closed while it was idle: nothing has come of the request yet
        make: Callable[[], Connection] = Connection
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(make, self._host, self._port, ssl=self._ssl)
        return await self._ask(connection, request, watch)

    def _used(self) -> Connection | None:
        while self._free:
            if (connection := self._free.pop()).usable:
                return connection
        return None

    async def _ask(self, connection: Connection, request: bytes, watch: Watch | None) -> Reply:
        try:
            reply = await connection.ask(request, watch)
        except BaseException:
            connection.close()
            raise
        if self._keep_alive and connection.usable:
            self._free.append(connection)
        else:
            connection.close()
        return reply

    def close(self) -> None:
        while self._free:
            self._free.pop().close()


def message(method: str, target: str, body: bytes = b"", head: str = "host: x\r\nconnection: close\r\n") -> bytes:
    """A request. `head`: lines of headers beside those that describe the body."""
    entity = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n" if body else ""
    return f"{method} {target} HTTP/1.1\r\n{head}{entity}\r\n".encode("latin-1") + body


def _checked(base_url: str) -> SplitResult:
    try:
        url = urlsplit(base_url)
        url.port  # noqa: B018 - raises for one that is no number
    except ValueError as error:
        raise BenchError(f"{base_url!r} is no URL: {error}") from error
    if url.scheme not in ("http", "https") or not url.hostname:
        raise BenchError(f"{base_url!r} is no base URL; expected http://HOST:PORT")
    return url


async def post_json(client: Client, target: str, body: object) -> Any:
    """The answer's JSON. Raises BenchError unless it is 200."""
    reply = await client.send(client.request("POST", target, json.dumps(body).encode()))
    if reply.status != 200:
        raise BenchError(f"status {reply.status}: {reply.body[:200]!r}")
    return json.loads(reply.body)
