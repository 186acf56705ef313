"""Operations: a method of a path, with its request and every answer that it may give."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pipeline.front.api.openapi.parts import COUNT, TEXT, reference
from pipeline.front.api.schema import Schema
from pipeline.front.delivery.deadline import HEADER, MOST_MS
from pipeline.front.delivery.kept.answers import DETACHED, TIMINGS
from pipeline.front.delivery.kept.written import STREAM_ID
from pipeline.front.http.exchange import REQUEST_ID

Operation = dict[str, Any]
EVENTS: Final = "text/event-stream"
NDJSON: Final = "application/x-ndjson"
_NAMED: Final = (
    "ResponseEvent",
    "AnthropicEvent",
)  # events of streams whose last one says that it is, or that it has failed
_MEANINGS: Final = {
    400: "The request is invalid; `param` names the parameter.",
    401: "The API key is missing or not valid.",
    403: "Not allowed for this client.",
    404: "Unknown path or model.",
    405: "Wrong method; the header Allow lists the right ones.",
    408: "The request took too long to arrive.",
    409: "Other weights are being loaded already.",
    413: "The body is too large.",
    415: "The body is compressed, which is not supported.",
    422: "A parameter is invalid; `param` names it.",
    429: "The queue is full, or too long for the request's deadline, or the API key has no more of what it may; try "
    "again later.",
    431: "The headers are too large or too many.",
    500: "The server failed.",
    503: "Not ready, restarting, shutting down, or too many connections; try again later.",
    499: "The request was cancelled by its id.",
    504: "The request took longer than it allows itself, or than the server's `request_timeout_s`.",
    529: "The queue is full, or too many large requests came at once; try again later.",
}
_IN_FORM: Final = (529,)  # only in an API whose errors have a form of their own
_EVERYWHERE: Final = (400, 405, 408, 431, 500, 503)
_WITH_BODY: Final = (413, 415)


def error_responses() -> dict[str, Any]:
    """By name, for the document's components."""
    return {f"Error{status}": _error(status, _MEANINGS[status]) for status in _MEANINGS if status not in _IN_FORM}


def in_form(operation: Operation, form: Schema) -> None:
    """Its errors have this form, but for what is no valid request as HTTP, and what is refused before it is read."""
    for status, response in operation["responses"].items():
        if "$ref" in response:
            error = _error(int(status), _MEANINGS[int(status)])
            error["content"] = _json({"anyOf": [form, reference("Error")]})["content"]
            operation["responses"][status] = error


def _error(status: int, meaning: str) -> dict[str, Any]:
    response: dict[str, Any] = {"description": meaning, **_json(reference("Error"))}
    if status in (429, 503, 529):
        response["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": COUNT}}
    if status == 401:
        response["headers"] = {"WWW-Authenticate": {"schema": TEXT}}
    if status == 405:
        response["headers"] = {"Allow": {"schema": TEXT}}
    return response


def get(name: str, meaning: str, answer: str = "", *, errors: Iterable[int] = (), **more: Any) -> Operation:
    """An answer in JSON; without a name it is any object."""
    success = _success(reference(answer) if answer else {"type": "object"})
    return {"operationId": name, "summary": meaning, **more, "responses": _responses(success, errors)}


def get_other(
    name: str,
    meaning: str,
    content_type: str,
    *,
    unchanged: bool = False,
    errors: Iterable[int] = (),
    **more: Any,
) -> Operation:
    """An answer that is not JSON. `unchanged`: may be 304 for a client that has it already."""
    success = {"description": meaning, "content": {content_type: {"schema": TEXT}}}
    responses = _responses(success, errors)
    if unchanged:
        responses["304"] = {"description": "Not modified: the ETag equals If-None-Match."}
    return {"operationId": name, "summary": meaning, **more, "responses": responses}


def post(name: str, meaning: str, request: Schema, answer: Schema, *, errors: Iterable[int] = (404,)) -> Operation:
    body = {"required": True, **_json(request)}
    responses = _responses(_success(answer), [*_WITH_BODY, *errors])
    return {"operationId": name, "summary": meaning, "requestBody": body, "responses": responses}


def generating(
    name: str,
    meaning: str,
    request: str,
    *,
    whole: str = "",
    event: str = "",
    streams: str = EVENTS,
    errors: Iterable[int] = (404,),
    full: int = 429,
) -> Operation:
    """`whole` and `event` are the answer in one piece and the events of a stream, whose media type is `streams`;
    `full` is the status when the queue is."""
    operation = post(name, meaning, reference(request), {}, errors=[*errors, 429, full, 499, 504])
    content: dict[str, Any] = _json(reference(whole))["content"] if whole else {}
    if event:
        content[streams] = {"schema": _stream(event, streams), "x-ringserve-event": reference(event)}
    operation["responses"]["200"]["content"] = content
    timings = f"Timings of the request in ms, if it had the header {TIMINGS.decode()}: 1."
    headers = operation["responses"]["200"]["headers"]
    headers[STREAM_ID.decode()] = {
        "description": "By which the answer can be read again, if it had the header x-detached-s, or all are kept.",
        "schema": TEXT,
    }
    headers["x-ttft-ms"] = headers["server-timing"] = {"description": timings, "schema": TEXT}
    operation["parameters"] = [
        _header(
            TIMINGS,
            "1: return timings in the headers x-…-ms and Server-Timing, in OpenAI's API in its usage, too, and "
            "in x-ringserve-replica who computed it, in x-ringserve-weights with which weights.",
        ),
        _header(HEADER, f"Milliseconds in which the answer must be complete, 1 to {MOST_MS}."),
        _header(
            DETACHED,
            "Seconds that the request goes on without its client, up to the server's max_detached_s; its answer can "
            "be read again by GET /v1/streams/{id}.",
        ),
        _header(REQUEST_ID, "The request's id in logs and in the answer: up to 128 visible ASCII characters."),
    ]
    return operation


def _stream(event: str, media_type: str) -> Schema:
    """Schema of one event, as OpenAPI 3.2's `itemSchema`, which 3.1 lacks."""
    if media_type == NDJSON:
        return {"description": f"A line per token, each a {event}, or an OllamaError that ends the stream."}
    if event == "GenerateEvent":
        return {"description": f"A line per token, each a {event}; not server-sent events."}
    if event in _NAMED:
        return _named_stream(event)
    content = {"anyOf": [reference(event), reference("Error")]}
    piece = {"type": "string", "contentMediaType": "application/json", "contentSchema": content}
    data = {"anyOf": [{"const": "[DONE]"}, piece]}
    meaning = f"One server-sent event: a {event}, an Error that ends the stream, or [DONE] at its end."
    return {"type": "object", "properties": {"data": data}, "required": ["data"], "description": meaning}


def _named_stream(event: str) -> Schema:
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": reference(event)}
    members = {"event": {**TEXT, "description": "Its type."}, "data": data}
    meaning = f"One server-sent event: a {event}, named by its type."
    return {"type": "object", "properties": members, "required": list(members), "description": meaning}


def _header(name: bytes, meaning: str) -> dict[str, Any]:
    return {"name": name.decode(), "in": "header", "required": False, "description": meaning, "schema": TEXT}


def _success(answer: Schema) -> dict[str, Any]:
    request_id = {"description": "The request's own id, or a new one.", "schema": TEXT}
    return {"description": "Success.", **_json(answer), "headers": {REQUEST_ID.decode(): request_id}}


def _json(schema: Schema) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _responses(success: dict[str, Any], errors: Iterable[int]) -> dict[str, Any]:
    every = sorted({*_EVERYWHERE, *errors})
    return {"200": success, **{str(status): {"$ref": f"#/components/responses/Error{status}"} for status in every}}
