"""What came back on a connection, read as strictly as HTTP/1.1 allows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from scripts.verify.fuzz.framing import SMUGGLED_ID

_STREAMS = (b"text/event-stream", b"application/x-ndjson")
_LEAKS = (b"Traceback", b"site-packages", b"/pipeline/", b'File "', b".py", b"0x7f")
_FINE_5XX = (501, 504, 505, 529)
"""Not implemented, the client's own deadline, version not supported; a full queue, in Anthropic's API."""
_TOO_LATE = b" ms that the request allows"
"""The client's own deadline, in a stream."""


class BadAnswerError(Exception):
    """The server answered something that it never should."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One response; 1xx are passed over."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    bodiless: bool  # it is to a HEAD request


def read_answers(data: bytes, *, bodiless: bool) -> list[Answer]:
    """All responses. Raises BadAnswerError for what is no HTTP, and for an answer that is cut off."""
    return list(_read(data, bodiless=bodiless))


def _read(data: bytes, *, bodiless: bool) -> Iterator[Answer]:
    while data:
        head, mark, rest = data.partition(b"\r\n\r\n")
        if not mark:
            raise BadAnswerError(f"an answer without an end of headers: {data[:200]!r}")
        status, headers = _head(head)
        if 100 <= status < 200:
            data = rest
            continue
        body, data = (b"", rest) if bodiless or status in (204, 304) else _body(headers, rest)
        yield Answer(status, headers, body, bodiless)
        bodiless = False


def _head(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    first, *lines = head.split(b"\r\n")
    version, _, rest = first.partition(b" ")
    code, _, reason = rest.partition(b" ")
    if version != b"HTTP/1.1" or not code.isdigit() or len(code) != 3 or not reason:
        raise BadAnswerError(f"no status line: {first[:200]!r}")
    headers: dict[bytes, bytes] = {}
    for line in lines:
        name, mark, value = line.partition(b": ")
        if not mark or name in headers or name != name.lower():
            raise BadAnswerError(f"an odd or repeated header: {line[:200]!r}")
        headers[name] = value
    return int(code), headers


def _body(headers: dict[bytes, bytes], rest: bytes) -> tuple[bytes, bytes]:
    """The body, and what follows it."""
    if headers.get(b"transfer-encoding") == b"chunked":
        return _chunks(rest)
    if b"content-length" not in headers:
        if headers.get(b"connection") != b"close":
            raise BadAnswerError("an answer of unknown length on a connection that stays")
        return rest, b""
    length = int(headers[b"content-length"])
    if len(rest) < length:
        raise BadAnswerError(f"{length} bytes were announced, {len(rest)} came")
    return rest[:length], rest[length:]


def _chunks(rest: bytes) -> tuple[bytes, bytes]:
    parts: list[bytes] = []
    while True:
        line, mark, rest = rest.partition(b"\r\n")
        size = int(line, 16) if mark else -1
        if size < 0 or rest[size : size + 2] != b"\r\n":
            raise BadAnswerError(f"a chunk is cut off: {line[:50]!r}, {rest[:100]!r}")
        if size == 0:
            return b"".join(parts), rest[2:]
        parts.append(rest[:size])
        rest = rest[size + 2 :]


def check_answer(answer: Answer) -> None:
    """Raises BadAnswerError unless it is a success, or an error as the API promises it."""
    if answer.status >= 500 and answer.status not in _FINE_5XX:
        raise BadAnswerError(f"status {answer.status}: {answer.body[:300]!r}")
    if answer.bodiless:
        return
    if answer.status >= 400:
        _check_error(answer)
    elif answer.status == 200 and answer.body:
        _check_success(answer)
    elif answer.status not in (200, 204):
        raise BadAnswerError(f"status {answer.status}")


def check_count(answers: list[Answer], count: int | None) -> None:
    """Raises BadAnswerError for an answer too many or too few, or one to what is not a request."""
    if count is not None and len(answers) != count:
        raise BadAnswerError(f"{len(answers)} answers in place of {count}")
    if any(answer.headers.get(b"x-request-id") == SMUGGLED_ID for answer in answers):
        raise BadAnswerError("the body of a request was taken for a request")


def _check_error(answer: Answer) -> None:
    error = _json(answer.body).get("error")
    error = {"message": error, "type": "Ollama's, which has none"} if isinstance(error, str) else error
    if answer.headers.get(b"content-type") != b"application/json" or not isinstance(error, dict):
        raise BadAnswerError(f"{answer.status} without a JSON error: {answer.body[:300]!r}")
    if not error.get("message") or not error.get("type") or len(answer.body) > 2000:
        raise BadAnswerError(f"{answer.status} with an error that says nothing, or too much: {answer.body[:300]!r}")
    if any(leak in answer.body for leak in _LEAKS):
        raise BadAnswerError(f"{answer.status} reveals internals: {answer.body[:300]!r}")


def _check_success(answer: Answer) -> None:
    kind = answer.headers[b"content-type"]
    if kind == b"application/json":
        _json(answer.body)
    elif kind.startswith(_STREAMS):
        named = (line for line in answer.body.split(b"\n") if not line.startswith(b"event: "))
        lines = (line.removeprefix(b"data:").strip() for line in named)
        for line in lines:
            if line and line != b"[DONE]" and _says_that_it_failed(_json(line)) and _TOO_LATE not in line:
                raise BadAnswerError(f"a stream that failed: {line[:300]!r}")


def _says_that_it_failed(event: dict[str, Any]) -> bool:
    return "error" in event or event.get("type") == "response.failed"


def _json(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError:
        raise BadAnswerError(f"not JSON: {content[:300]!r}") from None
    if not isinstance(value, dict):
        raise BadAnswerError(f"no JSON object: {content[:300]!r}")
    return value
