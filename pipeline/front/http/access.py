"""Who may do what: API keys, and what needs none."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

from pipeline.front.http.errors import ApiError

PROBES: Final = frozenset({"/health", "/ready"})

_FIGURES: Final = frozenset({"/metrics", "/live", "/"})
_PAGE: Final = "/page/"  # what the page at / consists of


def is_open(path: str) -> bool:
    """What is answered without a key: probes and figures, which tell nothing about anybody's requests. All else needs
    one, what does not exist included."""
    return path in PROBES or path in _FIGURES or path.startswith(_PAGE)


_SCHEME = b"bearer "


def is_operators(path: str) -> bool:
    """What `pipeline.metrics_port` moves to a port of its own."""
    return path in _FIGURES or path.startswith((_PAGE, "/debug/"))


class ApiKeys:
    """The keys that are good at present. `replace` takes effect with the next request."""

    __slots__ = ("_digests",)

    def __init__(self, digests: Iterable[str] = ()) -> None:
        self.replace(digests)

    def __repr__(self) -> str:
        return f"ApiKeys({len(self._digests)})"

    def replace(self, digests: Iterable[str]) -> None:
        """`digests` as of `pipeline.api_keys.load_api_keys`; none: whoever can connect may do everything."""
        self._digests = tuple(bytes.fromhex(text) for text in digests)

    @property
    def needed(self) -> bool:
        return bool(self._digests)

    def check(self, authorization: bytes | None) -> None:
        """Raises ApiError 401 unless the header holds a key, or none is needed."""
        if not self._digests:
            return
        if authorization is None:
            raise _unauthorized("an API key is needed; send it as Authorization: Bearer <key>", b"")
        if authorization[: len(_SCHEME)].lower() != _SCHEME:
            raise _unauthorized("the Authorization header must be: Bearer <key>", b"")
        if not self._knows(authorization[len(_SCHEME) :].strip()):
            raise _unauthorized("the API key is not one of this server's", b', error="invalid_token"')

    def _knows(self, key: bytes) -> bool:
        """Takes the same time whichever key fits, or none, and however much of one does."""
        offered, known = hashlib.sha256(key).digest(), 0
        for digest in self._digests:
            known |= hmac.compare_digest(offered, digest)
        return bool(known)


def _unauthorized(message: str, detail: bytes) -> ApiError:
    challenge = (b"www-authenticate", b'Bearer realm="ringserve"' + detail)
    kind, parameter, code = "authentication_error", "authorization", "invalid_api_key"
    return ApiError(401, message, kind=kind, parameter=parameter, code=code, headers=(challenge,))
