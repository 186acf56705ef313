"""By when a request's answer must be complete: the server's limit, or the client's, whichever is earlier."""

from __future__ import annotations

import time
from typing import Final

from pipeline.front.delivery.job import Job
from pipeline.front.http.errors import TIMED_OUT, ApiError
from pipeline.front.http.exchange import Exchange

HEADER: Final = b"x-request-timeout-ms"
MISSED: Final = "deadline_exceeded"
"""Code of an error: the client's own deadline has passed."""

MOST_MS: Final = 86_400_000  # a day


class Deadline:
    """Of a request that arrived at `arrival_ns` of the monotonic clock. `server_s`: the server's limit, which counts
    from now on. Raises ApiError 400 for a header that is no number."""

    def __init__(self, exchange: Exchange, job: Job, arrival_ns: int, server_s: float | None) -> None:
        header = exchange.headers.get(HEADER)
        asked = [part.params.timeout_ms for part in job.parts if part.params.timeout_ms is not None]
        self._ms = min([*asked, *([] if header is None else [_milliseconds(header)])], default=None)
        self._server_s, self._is_own = server_s, False
        self.ns = 0 if self._ms is None else arrival_ns + self._ms * 1_000_000
        """The client's own; 0: it has none."""

    def begin(self) -> float | None:
        """Seconds that are left; None: as long as it takes."""
        own = max(0.0, (self.ns - time.monotonic_ns()) / 1e9) if self.ns else None
        self._is_own = own is not None and (self._server_s is None or own <= self._server_s)
        return own if self._is_own else self._server_s

    def error(self) -> ApiError:
        """They have passed."""
        if self._is_own:
            told = f"the answer was not complete within the {self._ms} ms that the request allows"
            return ApiError(504, told, kind=TIMED_OUT, code=MISSED)
        return ApiError(504, f"the request took longer than {self._server_s:g} s", kind=TIMED_OUT)


def _milliseconds(header: bytes) -> int:
    if not header.isdigit() or len(header) > len(str(MOST_MS)) or not 1 <= int(header) <= MOST_MS:
        name = HEADER.decode()
        raise ApiError(400, f"the header {name} must be an integer from 1 to {MOST_MS}", parameter=name)
    return int(header)
