"""Cross-origin requests of browsers, for origins that the configuration names. By default there are none.

https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipeline.front.errors import ApiError
from pipeline.front.exchange import Exchange, Header

_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:[ \t]*,[ \t]*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*\Z")
_USUAL = b"authorization, content-type"
_EXPOSED = (b"access-control-expose-headers", b"retry-after, x-request-id")
_MAX_AGE_S = b"600"


class Cors:
    """`origins` such as ``https://example.org``, or ``*`` for all. Credentials are API keys, never cookies."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origin.lower().encode() for origin in origins)
        self._all = b"*" in self._origins

    def __bool__(self) -> bool:
        return bool(self._origins)

    def headers(self, exchange: Exchange) -> list[Header]:
        """What every answer to the request carries, errors included."""
        origin = exchange.headers.get(b"origin")
        if self._all:
            return [] if origin is None else [(b"access-control-allow-origin", b"*"), _EXPOSED]
        vary = (b"vary", b"origin")  # caches must not hand an answer for one origin to another
        if origin is None or origin.lower() not in self._origins:
            return [vary]
        return [vary, (b"access-control-allow-origin", origin), _EXPOSED]

    def is_preflight(self, exchange: Exchange) -> bool:
        asks = exchange.method == "OPTIONS" and b"access-control-request-method" in exchange.headers
        return asks and b"origin" in exchange.headers

    async def preflight(self, exchange: Exchange) -> None:
        """What a browser asks before it sends a request; it sends no key with it."""
        if not self._all and exchange.headers[b"origin"].lower() not in self._origins:
            raise ApiError(403, "this origin is not among pipeline.cors_origins", kind="permission_error")
        wanted = exchange.headers.get(b"access-control-request-headers", b"").strip() or _USUAL
        if not _NAMES.match(wanted):
            raise ApiError(400, "access-control-request-headers must be names of headers with commas between them")
        allowed = [
            (b"access-control-allow-methods", b"GET, HEAD, POST"),
            (b"access-control-allow-headers", wanted),
            (b"access-control-max-age", _MAX_AGE_S),
        ]
        await exchange.start(204, None, allowed)
        await exchange.end()
