"""Who may ask: API keys and the paths that need none, and browsers of other origins."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable
from typing import Final

from pipeline.front.http.account import Account
from pipeline.front.http.errors import ApiError
from pipeline.front.http.exchange import Exchange, Header
from pipeline.front.settings import FrontSettings
from pipeline.wire.api_key import ApiKey

PROBES: Final = frozenset({"/health", "/ready", "/ping"})

_METRICS: Final = frozenset({"/metrics", "/live", "/"})
_PAGE: Final = "/page/"  # files of the page at /
_FORWARDED: Final = frozenset({b"x-forwarded-for", b"forwarded"})
_SCHEME: Final = b"bearer "
_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:[ \t]*,[ \t]*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*\Z")
_USUAL = b"authorization, content-type"
_EXPOSED = (b"access-control-expose-headers", b"retry-after, x-request-id, x-stream-id")
_MAX_AGE_S = b"600"


def is_open(path: str) -> bool:
    """Paths that need no key: probes and metrics, which show nothing of any request. All others need one, those that
    don't exist included."""
    return path in PROBES or path in _METRICS or path.startswith(_PAGE)


KEY_HEADERS: Final = (b"x-api-key", b"api-key")
"""Headers in which clients of Anthropic and Azure send a key, and nothing else."""


def is_operators(path: str) -> bool:
    """Paths that `pipeline.metrics_port` moves to a port of their own."""
    return path in _METRICS or path.startswith((_PAGE, "/debug/", "/admin/"))


def is_loopback(client: str) -> bool:
    """The client's address is one of this machine."""
    try:
        return ipaddress.ip_address(client).is_loopback
    except ValueError:
        return False


def is_local(exchange: Exchange) -> bool:
    """The client is on this machine, and no proxy there that says for whom it asks."""
    return is_loopback(exchange.client) and _FORWARDED.isdisjoint(exchange.headers)


def require_operator(exchange: Exchange, *, or_local: bool = False) -> None:
    """Raises ApiError 403. Where no keys are needed, clients on this machine may; `or_local`: with any key, too. A
    page that a browser there shows could ask, but is not meant."""
    account = exchange.account
    if account is not None and account.key.operator:
        return
    if account is not None and not or_local:
        raise ApiError(403, "only an operator's API key may do that", kind="permission_error")
    if not is_local(exchange) or b"origin" in exchange.headers:
        told = "without an operator's API key this is for clients on this machine only, and for no browser's pages"
        raise ApiError(403, told, kind="permission_error")


class ApiKeys:
    """The keys that are valid now, and their accounts. `replace` takes effect with the next request."""

    __slots__ = ("_accounts",)

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        self._accounts: dict[bytes, Account] = {}
        self.replace(keys)

    def __repr__(self) -> str:
        return f"ApiKeys({len(self._accounts)})"

    def replace(self, keys: Iterable[ApiKey]) -> None:
        """`keys` as `load_api_keys` returns them; none: no key is needed. What keys that stay have used is kept."""
        before, self._accounts = self._accounts, {}
        for key in keys:
            digest = bytes.fromhex(key.digest)
            account = self._accounts[digest] = before.get(digest) or Account(key)
            account.change(key)

    @property
    def needed(self) -> bool:
        return bool(self._accounts)

    def of(self, digest: str) -> Account | None:
        """The account of the key with this digest, in hexadecimal, if it is valid."""
        return self._accounts.get(bytes.fromhex(digest))

    def check(self, authorization: bytes | None, bare: Iterable[bytes | None] = ()) -> Account | None:
        """The account of the key in the header, or in one of those that hold nothing else; None where no key is
        needed. Raises ApiError 401 where one is."""
        others = [key.strip() for key in bare if key is not None]
        if not self._accounts:
            return None
        if (account := next(filter(None, map(self._find, others)), None)) is not None:
            return account
        if authorization is None and not others:
            raise _unauthorized("an API key is needed; send the header Authorization: Bearer <key>", b"")
        if authorization is not None and authorization[: len(_SCHEME)].lower() != _SCHEME:
            raise _unauthorized("the Authorization header must be: Bearer <key>", b"")
        account = None if authorization is None else self._find(authorization[len(_SCHEME) :].strip())
        if account is None:
            raise _unauthorized("the API key is not valid", b', error="invalid_token"')
        return account

    def _find(self, key: bytes) -> Account | None:
        """Takes the same time whichever key matches, or none, and however much of one does."""
        offered, found = hashlib.sha256(key).digest(), -1
        for index, digest in enumerate(self._accounts):
            found += (index - found) * hmac.compare_digest(offered, digest)
        return None if found < 0 else list(self._accounts.values())[found]


def _unauthorized(message: str, detail: bytes) -> ApiError:
    challenge = (b"www-authenticate", b'Bearer realm="ringserve"' + detail)
    kind, parameter, code = "authentication_error", "authorization", "invalid_api_key"
    return ApiError(401, message, kind=kind, parameter=parameter, code=code, headers=(challenge,))


class Cors:
    """Cross-origin requests of browsers, for the origins in the configuration (https://fetch.spec.whatwg.org/#http-cors-protocol).

    Origins such as ``https://example.org``, or ``*`` for all; a reload may change them. By default there are none.
    Credentials are API keys, never cookies.
    """

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
            (b"access-control-allow-methods", b"GET, HEAD, POST, DELETE"),
            (b"access-control-allow-headers", wanted),
            (b"access-control-max-age", _MAX_AGE_S),
        ]
        await exchange.start(204, None, allowed)
        await exchange.end()
