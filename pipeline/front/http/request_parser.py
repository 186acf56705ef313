"""Bytes that a client sends → requests. Anything ambiguous is refused.

If a proxy in front of this server finds another end of a body than we do, its clients can smuggle requests into each
other's connections. So exactly one header of one spelling determines where a body ends, and an Upgrade is ignored
(RFC 9110, 7.8): the parser in C would take the body after it for the new protocol's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import unquote

import httptools

from pipeline.front.http.errors import ApiError
from pipeline.front.settings import FrontSettings

_MAX_HEADERS = 256  # of a request, trailers included
_LENGTH, _CODING = b"content-length", b"transfer-encoding"
_ONCE: Final = frozenset({_LENGTH, _CODING})
_NO_TRAILERS: Final = frozenset({*_ONCE, b"connection", b"upgrade"})  # the parser would act on some of them
_LENGTH_DIGITS = 18  # fits into a signed 64-bit number, which other servers and proxies may use


@dataclass(frozen=True, slots=True)
class Head:
    """A request without its body."""

    method: str
    path: str  # percent-decoded
    query: bytes
    headers: Mapping[bytes, bytes]  # names in lower case; of several of one name the last
    modern: bool  # HTTP/1.1: the client knows chunks and interim responses
    keep_alive: bool


class RequestSink(Protocol):
    """Gets what was parsed: `on_begin` at a request's first byte, then `on_head`, any number of `on_body`, `on_end`.
    `RequestParser.feed` raises what these raise."""

    def on_begin(self) -> None: ...

    def on_head(self, head: Head) -> None: ...

    def on_body(self, data: bytes) -> None: ...

    def on_end(self) -> None: ...


class RequestParser:
    """Ignores everything after a request that asks for the connection to be closed."""

    def __init__(self, sink: RequestSink, settings: FrontSettings) -> None:
        self._sink, self._settings = sink, settings
        self._parser = httptools.HttpRequestParser(self)
        self._muted = False  # the parser reads a head that we made
        self._last = False
        self._in_body = False
        self._unused_bytes = 0  # that were fed since a part of a body, or the end of a request
        self._header_bytes = self._header_count = 0
        self._url = self._framing = b""
        self._headers: dict[bytes, bytes] = {}
        self._keep_alive = True

    def feed(self, data: bytes) -> None:
        """Raises ApiError for bytes that are not a valid request; nothing may be fed after that."""
        self._unused_bytes += len(data)
        rest: bytes | memoryview = data
        while len(rest) and not self._last:
            rest = self._parse(rest)
        if self._unused_bytes > self._settings.header_limit_bytes and not self._last:
            raise self._too_long()

    def _parse(self, data: bytes | memoryview) -> bytes | memoryview:
        """Returns what the parser left."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            return self._ignore_upgrade(memoryview(data)[stopped.args[0] :])
        except httptools.HttpParserCallbackError as error:
            if not self._last:
                raise error.__context__ or error from None
        except httptools.HttpParserError as error:
            if not self._last:
                raise ApiError(400, f"not a valid HTTP request: {error}") from None
        return b""

    def _ignore_upgrade(self, rest: memoryview) -> memoryview:
        """A new parser, which knows of the request only where its body ends."""
        self._parser = httptools.HttpRequestParser(self)
        if self._framing:
            self._muted = True
            self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % self._framing)
            self._muted = False
        else:
            self._end()
        return rest

    # ---- what the parser in C calls ---------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._muted:
            return
        if self._last:
            raise ApiError(400, "nothing may follow here")  # `_parse` catches it
        self._header_bytes = self._header_count = 0
        self._url, self._headers = b"", {}
        self._sink.on_begin()

    def on_url(self, url: bytes) -> None:
        if not self._muted:
            self._count(len(url))
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._muted:
            return
        self._header_count += 1
        self._count(len(name) + len(value) + len(": \r\n"))
        name = name.lower()
        if self._in_body:
            if name in _NO_TRAILERS:
                raise ApiError(400, f"the header {name.decode()} must not be in the trailers")
        elif name in _ONCE and name in self._headers:
            raise ApiError(400, f"the header {name.decode()} must not be repeated")
        else:
            self._headers[name] = value.strip(b" " if name == _CODING else b" \t")  # as the parser in C does

    def on_headers_complete(self) -> None:
        if not self._muted:
            head = self._head()
            self._keep_alive, self._in_body = head.keep_alive, True
            self._sink.on_head(head)

    def on_body(self, data: bytes) -> None:
        self._unused_bytes = 0
        self._sink.on_body(data)

    def on_message_complete(self) -> None:
        if not self._muted and not self._parser.should_upgrade():  # with an Upgrade, the body is yet to come
            self._end()

    def _end(self) -> None:
        self._unused_bytes = 0
        self._in_body, self._last = False, not self._keep_alive
        self._sink.on_end()

    # ---- limits and meaning of a head -------------------------------------------------------------------------

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self._settings.header_limit_bytes:
            raise self._too_long()
        if self._header_count > _MAX_HEADERS:
            raise ApiError(431, f"the request has more than {_MAX_HEADERS} headers")

    def _too_long(self) -> ApiError:
        limit = self._settings.header_limit_bytes
        return ApiError(431, f"the request line and the headers are larger than {limit} bytes")

    def _head(self) -> Head:
        parser, headers = self._parser, self._headers
        version, method = parser.get_http_version(), parser.get_method()
        if version not in ("1.1", "1.0"):
            raise ApiError(400, f"HTTP/{version} is not supported; use HTTP/1.1")
        if method == b"CONNECT":
            raise ApiError(400, "CONNECT is for proxies; this server is none")
        modern = version == "1.1"
        self._framing = _framing(headers, modern)
        path, query = _split(self._url)
        return Head(method.decode(), path, query, headers, modern, modern and parser.should_keep_alive())


def _framing(headers: Mapping[bytes, bytes], modern: bool) -> bytes:
    """The one header that determines where the body ends; empty if there is none. Raises ApiError 400."""
    length, coding = headers.get(_LENGTH), headers.get(_CODING)
    if coding is not None:
        if coding.lower() != b"chunked" or length is not None or not modern:
            raise ApiError(400, "transfer-encoding must be chunked, with HTTP/1.1 and without content-length")
        return b"%b: chunked" % _CODING
    if length is None:
        return b""
    digits = length.lstrip(b"0")
    if not length.isdigit() or len(digits) > _LENGTH_DIGITS:
        raise ApiError(400, "content-length must be a number of bytes")
    return b"%b: %b" % (_LENGTH, digits) if digits else b""


def _split(target: bytes) -> tuple[str, bytes]:
    """Path and query of a request's target, absolute-form included. Raises ApiError 400."""
    try:
        parsed = httptools.parse_url(target)
        path = (parsed.path or b"/").decode("ascii")
    except (httptools.HttpParserError, UnicodeDecodeError):
        raise ApiError(400, "the request target is neither a path nor a URL") from None
    return unquote(path) if "%" in path else path, parsed.query or b""
