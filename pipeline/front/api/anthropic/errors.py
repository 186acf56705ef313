"""Errors in the form of Anthropic's API, whose clients decide by type and status whether they try again."""

from __future__ import annotations

from typing import Any, Final

import orjson

from pipeline.front.http.errors import OVERLOADED, ApiError
from pipeline.wire.request import TOO_LONG

OVERLOADED_STATUS: Final = 529
_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
}
_TOO_LONG: Final = "prompt is too long: "
"""Claude Code shortens its conversation when it reads this."""


NO_THREADS: Final = "thread_unsupported_request"
"""Code of an error at which Anthropic's package sends the whole conversation instead."""


def error_object(error: ApiError) -> dict[str, Any]:
    if error.kind == OVERLOADED:
        return {"type": OVERLOADED, "message": error.message}
    usual = "api_error" if error.status >= 500 else "invalid_request_error"
    before = _TOO_LONG if error.code == TOO_LONG else ""
    details = {"details": {"error_code": NO_THREADS}} if error.code == NO_THREADS else {}
    return {"type": _TYPES.get(error.status, usual), "message": before + error.message, **details}


def anthropic_refusal(error: ApiError, request_id: str) -> tuple[int, bytes]:
    """See `ErrorForm`. A queue that is full has a status of its own."""
    status = OVERLOADED_STATUS if error.kind == OVERLOADED else error.status
    return status, orjson.dumps({"type": "error", "error": error_object(error), "request_id": request_id})
