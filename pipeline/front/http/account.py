"""What the requests of one API key have used, and may still use."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from pipeline.front.http.errors import ApiError, retry_later
from pipeline.wire.api_key import ApiKey

LIMITED = "rate_limit_exceeded"
"""OpenAI's code of these errors."""

_MINUTE = 60.0


class Bucket:
    """So many per minute: it is full at first, and fills up evenly. Its level may be below 0: what something costs is
    known only when it is done."""

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.limit, self._level, self._at = limit, float(limit), clock()

    @property
    def level(self) -> float:
        now = self._clock()
        self._level = min(self.limit, self._level + (now - self._at) * self.limit / _MINUTE)
        self._at = now
        return self._level

    def take(self, number: float) -> None:
        self._level = self.level - number

    def resize(self, limit: int) -> None:
        """What was used stays used."""
        used, self.limit = self.limit - self.level, limit
        self._level = limit - used

    def seconds_until(self, level: float) -> float:
        return max(0.0, min(level, self.limit) - self.level) * _MINUTE / self.limit


class Account:
    """Of one key: `begin` a request, `reserve` before it costs anything, `settle` when that is known, and `end` it.
    What a limit forbids raises ApiError 429."""

    def __init__(self, key: ApiKey, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running = 0
        self._requests: Bucket | None = None
        self._tokens: Bucket | None = None
        self.change(key)

    def change(self, key: ApiKey) -> None:
        """The same key, but perhaps with other rules."""
        self.key = key
        self._requests = self._resized(self._requests, key.requests_per_minute)
        self._tokens = self._resized(self._tokens, key.tokens_per_minute)

    def _resized(self, bucket: Bucket | None, limit: int | None) -> Bucket | None:
        if limit is None or bucket is None:
            return None if limit is None else Bucket(limit, self._clock)
        bucket.resize(limit)
        return bucket

    def begin(self, *, again: bool = False) -> None:
        """`again`: it was let in before."""
        most, requests = self.key.concurrent, self._requests
        if again:
            self._running += 1
            return
        if most is not None and self._running >= most:
            raise _limited(
                "requests", f"this API key may have {most} requests at a time; {self._running} run or wait"
            )
        if requests is not None and requests.level < 1:
            told = f"this API key may send {requests.limit} requests per minute"
            raise _limited("requests", told, requests.seconds_until(1))
        self._running += 1
        if requests is not None:
            requests.take(1)

    def end(self) -> None:
        self._running -= 1

    def reserve(self, tokens: int, *, again: bool = False) -> None:
        """As many as a request is expected to cost. One that is larger than the limit is let in when nothing of the
        limit is used, or it could never be served; and one that was let in before."""
        bucket = self._tokens
        if bucket is None:
            return
        if not again and bucket.level < min(tokens, bucket.limit):
            told = f"this API key may have {bucket.limit} tokens per minute, of prompts and answers; {tokens} more"
            raise _limited("tokens", f"{told} are too many now", bucket.seconds_until(tokens))
        bucket.take(tokens)

    def settle(self, reserved: int, used: int) -> None:
        if self._tokens is not None:
            self._tokens.take(used - reserved)

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """OpenAI's `x-ratelimit-…`, of the limits that there are; those of requests are of a minute, where there is
        such a limit."""
        told: list[tuple[bytes, bytes]] = []
        if self._requests is not None:
            told += _of_bucket(b"requests", self._requests)
        elif self.key.concurrent is not None:
            left = max(0, self.key.concurrent - self._running)
            told += _headers(b"requests", self.key.concurrent, left, 0.0 if left else 1.0)
        if self._tokens is not None:
            told += _of_bucket(b"tokens", self._tokens)
        return told


def _of_bucket(what: bytes, bucket: Bucket) -> list[tuple[bytes, bytes]]:
    return _headers(what, bucket.limit, max(0, math.floor(bucket.level)), bucket.seconds_until(bucket.limit))


def _headers(what: bytes, limit: int, left: int, reset_s: float) -> list[tuple[bytes, bytes]]:
    values = {b"limit": b"%d" % limit, b"remaining": b"%d" % left, b"reset": duration(reset_s).encode()}
    return [(b"x-ratelimit-%b-%b" % (name, what), value) for name, value in values.items()]


def duration(seconds: float) -> str:
    """As OpenAI's headers have it: 20ms, 7s, 1m30s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1e3)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _limited(what: str, message: str, seconds: float = 1.0) -> ApiError:
    wait = max(1, math.ceil(seconds))
    return retry_later(429, f"{message}; try again in {wait} s", what, wait, LIMITED)
