"""A request and its answer, as handlers see them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson

from pipeline.front.http.account import Account
from pipeline.front.http.errors import OVERLOADED, ApiError, ClientGone, ErrorForm, openai_refusal, retry_later
from pipeline.front.http.line import Line
from pipeline.front.http.request_parser import Head
from pipeline.front.http.responses import CONTINUE, Outbox, Response
from pipeline.front.settings import FrontSettings

JSON = b"application/json"
Header = tuple[bytes, bytes]
REQUEST_ID = b"x-request-id"
_LONGEST_ID = 128
_ID_BYTES = 16  # a client may collect something by its id, so that nobody must be able to guess it


class BodyMemory:
    """Limits the bytes that have been received of all bodies that are not complete yet: each is bounded, but there
    may be a thousand."""

    def __init__(self, settings: FrontSettings) -> None:
        self._settings, self._used = settings, 0  # settings may change

    def take(self, size: int) -> None:
        """Raises ApiError 503 when there is no room for so many bytes more."""
        if self._used + size > self._settings.body_memory_bytes:
            raise retry_later(503, "too many large requests at once; try again later", OVERLOADED)
        self._used += size

    def give(self, size: int) -> None:
        """The body is complete, or never will be."""
        self._used -= size


class RequestBody:
    """Between a connection and its handler: a buffer with one reader. `held`: bytes in it; `complete`: no more will
    come."""

    def __init__(self) -> None:
        self.complete = self._gone = False
        self.held = 0
        self._parts: list[bytes] = []
        self._changed = asyncio.Event()

    def add(self, data: bytes) -> None:
        self._parts.append(data)
        self.held += len(data)
        self._changed.set()

    def finish(self) -> None:
        self.complete = True
        self._changed.set()

    def break_off(self) -> None:
        """The rest will never come."""
        self._gone = True
        self._changed.set()

    @property
    def awaited(self) -> bool:
        """There is nothing to take."""
        return not self._parts and not self.complete and not self._gone

    async def take(self) -> bytes:
        """Bytes that have arrived; waits for some unless the body is complete. Raises ClientGone."""
        while self.awaited:
            self._changed.clear()
            await self._changed.wait()
        if self._gone:
            raise ClientGone("the client closed the connection")
        data = b"".join(self._parts)
        self._parts.clear()
        self.held = 0
        return data


class Exchange(Response):
    """`body`, and what `Response` has, are for the connection; handlers use the methods."""

    def __init__(self, head: Head, connection: Line, bodies: BodyMemory) -> None:
        super().__init__(connection, head)
        self.method, self.path, self.query, self.headers = head.method, head.path, head.query, head.headers
        self.client, self.port = connection.client, connection.port
        self.common: Sequence[Header] = ()  # headers of the answer, whatever it is
        self.account: Account | None = None  # of its API key, where one is needed
        self.metered = False  # it counts against the key's limits, and its answer says so
        self.seed = secrets.token_hex(_ID_BYTES)  # of all ids that the server gives this request and its answer
        self.client_id = _client_id(self.headers.get(REQUEST_ID, b""))
        self.request_id = self.client_id or self.seed.encode()  # of the answer, whatever it is
        self.created = 0  # Unix time; 0: when it is admitted
        self.again = False  # a front before this one has admitted it
        self.body, self.body_bytes = RequestBody(), 0
        self.content: bytes | None = None  # of the body, where it was read before
        self._invites = head.modern and self.headers.get(b"expect", b"").lower() == b"100-continue"
        self._unread = False  # a part of the body was not read
        self._settings, self._bodies = connection.settings, bodies

    @property
    def key(self) -> str:
        """Digest of the client's API key; "" where none is needed."""
        return "" if self.account is None else self.account.key.digest

    @property
    def over(self) -> bool:
        """The answer is complete, or the client is gone."""
        return self.complete or self.gone

    def break_off(self) -> None:
        """The client is gone, or will be disconnected after an error."""
        self.gone = True
        self.body.break_off()

    # ---- the request ----------------------------------------------------------------------------------------

    async def read_body(self) -> bytes:
        """All of it. Raises ApiError 413, 415, 503; ClientGone."""
        if self.content is not None:
            content, self.content = self.content, None
            return content
        if self.headers.get(b"content-encoding", b"identity") != b"identity":
            message = "compressed bodies are not supported; send the body without content-encoding"
            raise ApiError(415, message, parameter="content-encoding")
        self._unread = True
        announced = self.headers.get(b"content-length", b"").lstrip(b"0")  # digits: the parser has checked that
        self._require_size(int(announced or 0))
        parts: list[bytes] = []
        held = 0
        try:
            while await self._read_part(parts):
                self._bodies.take(len(parts[-1]))
                held += len(parts[-1])
                self._require_size(held)
        finally:
            self._bodies.give(held)
        self._unread = False
        body = b"".join(parts)
        self._require_size(len(body))
        self.body_bytes = len(body)
        return body

    async def _read_part(self, parts: list[bytes]) -> bool:
        """Whether there is more. Raises ClientGone."""
        if self._invites and self.body.awaited:
            self.connection.transport.write(CONTINUE)
        self._invites = False
        parts.append(await self.body.take())
        self.connection.pace_reading()  # there is room for more
        return not self.body.complete

    def _require_size(self, size: int) -> None:
        if size > self._settings.body_limit_bytes:
            raise ApiError(413, f"the body is larger than {self._settings.body_limit_bytes} bytes")

    # ---- the answer -----------------------------------------------------------------------------------------

    async def start(self, status: int, content_type: bytes | None, headers: Sequence[Header] = ()) -> None:
        await self.begin(self.head(status, content_type, headers))

    def head(self, status: int, content_type: bytes | None, headers: Sequence[Header] = ()) -> bytes:
        """For `begin`; another one may still be made instead."""
        every = [(REQUEST_ID, self.request_id), *self.common, *headers]
        if self.metered and self.account is not None:
            every += self.account.headers
        if content_type is not None:
            every.append((b"content-type", content_type))
        return self.make_head(status, every)

    @property
    def keeps_up(self) -> bool:
        """The client is connected, reads what is written, and supports chunks."""
        connection = self.connection
        return self.modern and not connection.write_paused and not connection.transport.is_closing()

    async def ping(self, body: bytes) -> None:
        """As `write`, of what is no part of the answer."""
        await self.write(body)

    def write_soon(self, body: bytes, outbox: Outbox) -> None:
        """As `write`, for every token, where the client `keeps_up`: HTTP's chunk goes to the transport directly.
        Nothing else writes there before the answer ends."""
        outbox.put(self.connection.transport, b"%x\r\n%b\r\n" % (len(body), body))

    def begin_soon(self, head: bytes, body: bytes, outbox: Outbox) -> None:
        """As `begin` and `write_soon`. `head`: as `head` has made it last."""
        self.started = True
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        outbox.put(self.connection.transport, head + chunk)

    async def respond(
        self, status: int, body: bytes, content_type: bytes = JSON, headers: Sequence[Header] = ()
    ) -> None:
        await self.start(status, content_type, [(b"content-length", b"%d" % len(body)), *headers])
        await self.end(body)

    async def refuse(self, error: ApiError, form: ErrorForm = openai_refusal) -> None:
        """The answer is an error. The connection is closed if a part of the body is unread."""
        if self._unread:
            self.keep_alive = False
        await self.respond(*form(error, self.request_id.decode()), headers=error.headers)


Handler = Callable[[Exchange], Awaitable[None]]


async def answer_json(exchange: Exchange, value: Any) -> None:
    await exchange.respond(200, orjson.dumps(value))


def _client_id(header: bytes) -> bytes:
    """The client's id for its request, empty if it does not fit into a header and a log line."""
    printable = all(0x21 <= byte <= 0x7E for byte in header)
    return header if printable and len(header) <= _LONGEST_ID else b""
