"""Responses that uvicorn does not write: to what is no request, and to clients that know no chunks."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from pipeline.front.errors import ApiError


def plain_response(error: ApiError) -> bytes:
    """All of it; the connection is closed behind it."""
    body = error.body()
    headers = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *error.headers)
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return b"%bconnection: close\r\n%b\r\n%b" % (STATUS_LINE[error.status], lines, body)


class UntilClose:
    """What a cycle sends to a client that knows no chunks: an answer of unknown length ends when the connection does.

    uvicorn's cycle would send chunks. Told that the length is known, it wants to see just as many bytes, so each part
    is announced by itself.
    """

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle, self._send = cycle, cycle.send
        self._open_ended = False

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._open_ended = all(name != b"content-length" for name, _ in message["headers"])
            if self._open_ended:
                self._cycle.chunked_encoding = False
        elif self._open_ended:
            self._cycle.expected_content_length = len(message["body"])
        await self._send(message)
