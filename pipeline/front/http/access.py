"""Access: API keys, and the paths that need none."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

from pipeline.front.http.errors import ApiError

PROBES: Final = frozenset({"/health", "/ready", "/ping"})

_METRICS: Final = frozenset({"/metrics", "/live", "/"})
_PAGE: Final = "/page/"  # files of the page at /


def is_open(path: str) -> bool:
    """Paths that need no key: probes and metrics, which show nothing of any request. All others need one, those that
    don't exist included."""
    return path in PROBES or path in _METRICS or path.startswith(_PAGE)


KEY_HEADERS: Final = (b"x-api-key", b"api-key")
"""Headers in which clients of Anthropic and Azure send a key, and nothing else."""

_SCHEME = b"bearer "


def is_operators(path: str) -> bool:
    """Paths that `pipeline.metrics_port` moves to a port of their own."""
    return path in _METRICS or path.startswith((_PAGE, "/debug/"))


class ApiKeys:
    """The keys that are valid now. `replace` takes effect with the next request."""

    __slots__ = ("_digests",)

    def __init__(self, digests: Iterable[str] = ()) -> None:
        self.replace(digests)

    def __repr__(self) -> str:
        return f"ApiKeys({len(self._digests)})"

    def replace(self, digests: Iterable[str]) -> None:
        """`digests` as `load_api_keys` returns them; none: no key is needed."""
        self._digests = tuple(bytes.fromhex(text) for text in digests)

    @property
    def needed(self) -> bool:
        return bool(self._digests)

    def check(self, authorization: bytes | None, bare: Iterable[bytes | None] = ()) -> None:
        """Raises ApiError 401 unless the header, or one of those that hold nothing else, has a key, or none is
        needed."""
        others = [key.strip() for key in bare if key is not None]
        if not self._digests or any(map(self._knows, others)):
            return
        if authorization is None and not others:
            raise _unauthorized("an API key is needed; send the header Authorization: Bearer <key>", b"")
        if authorization is not None and authorization[: len(_SCHEME)].lower() != _SCHEME:
            raise _unauthorized("the Authorization header must be: Bearer <key>", b"")
        if authorization is None or not self._knows(authorization[len(_SCHEME) :].strip()):
            raise _unauthorized("the API key is not valid", b', error="invalid_token"')

    def _knows(self, key: bytes) -> bool:
        """Takes the same time whichever key matches, or none, and however much of one does."""
        offered, known = hashlib.sha256(key).digest(), 0
        for digest in self._digests:
            known |= hmac.compare_digest(offered, digest)
        return bool(known)


def _unauthorized(message: str, detail: bytes) -> ApiError:
    challenge = (b"www-authenticate", b'Bearer realm="ringserve"' + detail)
    kind, parameter, code = "authentication_error", "authorization", "invalid_api_key"
    return ApiError(401, message, kind=kind, parameter=parameter, code=code, headers=(challenge,))
