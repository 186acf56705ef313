"""Errors as clients see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass

import orjson

INVALID = "invalid_request_error"
NOT_FOUND = "not_found_error"
OVERLOADED = "overloaded_error"
SERVER = "server_error"
UNAVAILABLE = "service_unavailable_error"
TIMED_OUT = "timeout_error"

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(eq=False)
class ApiError(Exception):
    """An answer other than success."""

    status: int
    message: str
    _: KW_ONLY
    kind: str = INVALID  # the error's type in JSON
    parameter: str | None = None  # that is wrong
    code: str | None = None  # one of OpenAI's that clients react to, such as "model_not_found"
    headers: Headers = ()

    def __str__(self) -> str:
        return self.message

    def body(self) -> bytes:
        """The JSON form, which OpenAI's clients know: an object `error`."""
        error = {"message": self.message, "type": self.kind, "param": self.parameter, "code": self.code}
        return orjson.dumps({"error": error})


ErrorForm = Callable[[ApiError, str], tuple[int, bytes]]
"""An API's: status and JSON of the answer to a request with this id."""


def openai_refusal(error: ApiError, request_id: str) -> tuple[int, bytes]:
    """See `ErrorForm`; that of all paths whose API has no other."""
    return error.status, error.body()


class ClientGone(Exception):  # noqa: N818 - no error: there is no client to answer
    """The client closed the connection, or was disconnected because it did not read."""


def retry_later(status: int, message: str, kind: str, seconds: int = 1, code: str | None = None) -> ApiError:
    return ApiError(status, message, kind=kind, code=code, headers=((b"retry-after", b"%d" % seconds),))
