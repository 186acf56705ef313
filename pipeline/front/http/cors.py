"""Cross-origin requests of browsers, for the origins in the configuration. By default there are none.

https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from __future__ import annotations

import re

from pipeline.front.http.errors import ApiError
from pipeline.front.http.exchange import Exchange, Header
from pipeline.front.settings import FrontSettings

_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:[ \t]*,[ \t]*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*\Z")
_USUAL = b"authorization, content-type"
_EXPOSED = (b"access-control-expose-headers", b"retry-after, x-request-id")
_MAX_AGE_S = b"600"


class Cors:
    """Origins such as ``https://example.org``, or ``*`` for all; a reload may change them. Credentials are API keys,
    never cookies."""

    def __init__(self, settings: FrontSettings) -> None:
        self._settings = settings

    def __bool__(self) -> bool:
        return bool(self._settings.cors_origins)

    @property
    def _all(self) -> bool:
        return "*" in self._settings.cors_origins

    def _knows(self, origin: bytes) -> bool:
        return origin.lower().decode("latin-1") in map(str.lower, self._settings.cors_origins)

    def headers(self, exchange: Exchange) -> list[Header]:
        """Headers of every answer to the request, errors included."""
        origin = exchange.headers.get(b"origin")
        if self._all:
            return [] if origin is None else [(b"access-control-allow-origin", b"*"), _EXPOSED]
        vary = (b"vary", b"origin")  # caches must not hand an answer for one origin to another
        if origin is None or not self._knows(origin):
            return [vary]
        return [vary, (b"access-control-allow-origin", origin), _EXPOSED]

    def is_preflight(self, exchange: Exchange) -> bool:
        asks = exchange.method == "OPTIONS" and b"access-control-request-method" in exchange.headers
        return asks and b"origin" in exchange.headers

    async def preflight(self, exchange: Exchange) -> None:
        """Answers the request that a browser sends, without a key, before the actual one."""
        if not self._all and not self._knows(exchange.headers[b"origin"]):
            raise ApiError(403, "this origin is not in pipeline.cors_origins", kind="permission_error")
        wanted = exchange.headers.get(b"access-control-request-headers", b"").strip() or _USUAL
        if not _NAMES.match(wanted):
            raise ApiError(400, "access-control-request-headers must be header names, separated by commas")
        allowed = [
            (b"access-control-allow-methods", b"GET, HEAD, POST"),
            (b"access-control-allow-headers", wanted),
            (b"access-control-max-age", _MAX_AGE_S),
        ]
        await exchange.start(204, None, allowed)
        await exchange.end()
