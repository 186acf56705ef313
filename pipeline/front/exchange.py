"""A request and its answer, as handlers see them: a thin layer over ASGI."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson

from pipeline.front.body_memory import BodyMemory
from pipeline.front.connection import EXTENSION, Connection
from pipeline.front.errors import ApiError, ClientGone
from pipeline.front.outbox import Outbox
from pipeline.front.settings import FrontSettings

Send = Callable[[Any], Awaitable[None]]
JSON = b"application/json"
Header = tuple[bytes, bytes]
REQUEST_ID = b"x-request-id"
_LONGEST_ID = 128


class Exchange:
    """`started` says that the status line is out: an error can't be told with a status any more."""

    def __init__(
        self,
        scope: Any,
        receive: Callable[[], Awaitable[Any]],
        send: Send,
        settings: FrontSettings,
        bodies: BodyMemory,
    ) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        self.client: str = scope["client"][0] if scope["client"] else ""
        self.port: int = scope["server"][1]  # that the client connected to
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.common: Sequence[Header] = ()  # headers of the answer, whatever it is
        self.client_id = _client_id(self.headers.get(REQUEST_ID, b""))
        self.request_id = self.client_id or secrets.token_hex(8).encode()  # of the answer, whatever it is
        self.connection: Connection = scope["extensions"][EXTENSION]["connection"]
        self._chunks: bool = scope["http_version"] == "1.1"
        self.started = False
        self._unread = False  # the body was given up half-way
        self.body_bytes = 0
        self._receive, self._send, self._settings, self._bodies = receive, send, settings, bodies

    # ---- the request ----------------------------------------------------------------------------------------

    async def read_json(self) -> dict[str, Any]:
        """The body, which must be a JSON object. Raises ApiError 400, 413, 415, 503; ClientGone."""
        content = await self._read_body()
        self.body_bytes = len(content)
        try:
            body = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise ApiError(400, f"the body is not valid JSON: {error}") from None
        if not isinstance(body, dict):
            raise ApiError(400, "the body must be a JSON object")
        return body

    async def _read_body(self) -> bytes:
        if self.headers.get(b"content-encoding", b"identity") != b"identity":
            raise ApiError(415, "the body must not be compressed", parameter="content-encoding")
        self._unread = True
        self._require_size(self._announced())
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
        return body

    async def _read_part(self, parts: list[bytes]) -> bool:
        """Whether there is more. Raises ClientGone."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the client closed the connection")
        parts.append(message["body"])
        return bool(message["more_body"])

    def _announced(self) -> int:
        length = self.headers.get(b"content-length", b"0")
        return int(length) if length.isdigit() and len(length) < 20 else 0

    def _require_size(self, size: int) -> None:
        if size > self._settings.body_limit_bytes:
            raise ApiError(413, f"the body is longer than {self._settings.body_limit_bytes} bytes")

    # ---- the answer -----------------------------------------------------------------------------------------

    async def start(self, status: int, content_type: bytes | None, headers: Sequence[Header] = ()) -> None:
        self.started = True
        every = [(REQUEST_ID, self.request_id), *self.common, *headers]
        if content_type is not None:
            every.append((b"content-type", content_type))
        await self._send({"type": "http.response.start", "status": status, "headers": every})

    async def write(self, body: bytes) -> None:
        """A part of an answer whose length was not told; waits while the client does not keep up."""
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    @property
    def keeps_up(self) -> bool:
        """The client is there, reads what is written, and knows chunks."""
        connection = self.connection
        return self._chunks and not connection.flow.write_paused and not connection.transport.is_closing()

    def write_soon(self, body: bytes, outbox: Outbox) -> None:
        """As `write`, for every token, where the client `keeps_up`: HTTP's chunk goes to the transport itself. Nobody
        else writes there while an answer lasts."""
        outbox.put(self.connection.transport, b"%x\r\n%b\r\n" % (len(body), body))

    async def end(self, body: bytes = b"") -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def respond(
        self, status: int, body: bytes, content_type: bytes = JSON, headers: Sequence[Header] = ()
    ) -> None:
        await self.start(status, content_type, [(b"content-length", b"%d" % len(body)), *headers])
        await self.end(body)

    async def refuse(self, error: ApiError) -> None:
        """An error with its status. The connection ends with one that leaves the body unread."""
        close = [(b"connection", b"close")] if self._unread else []
        await self.respond(error.status, error.body(), headers=[*error.headers, *close])


async def answer_json(exchange: Exchange, value: Any) -> None:
    await exchange.respond(200, orjson.dumps(value))


def _client_id(header: bytes) -> bytes:
    """What a client calls its request, empty if it is not fit for an answer's header and a line of the log."""
    printable = all(0x21 <= byte <= 0x7E for byte in header)
    return header if printable and len(header) <= _LONGEST_ID else b""
