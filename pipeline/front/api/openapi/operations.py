"""Operations: a method of a path, with what it takes and every answer that it may give."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pipeline.front.api.openapi.schema import Schema, any_of, integer, only, reference, text
from pipeline.front.delivery.generation import TIMINGS
from pipeline.front.http.exchange import REQUEST_ID

Operation = dict[str, Any]

_MEANINGS: Final = {
    400: "Something in the request is wrong; `param` names it.",
    401: "An API key is needed, or it is not one of this server's.",
    403: "Not for this client.",
    404: "No such path or model.",
    405: "Another method is expected here.",
    408: "The request took too long to arrive.",
    413: "The body is longer than allowed.",
    415: "The body is compressed.",
    422: "A parameter is wrong; `param` names it.",
    429: "The queue is full.",
    431: "The headers are longer or more than allowed.",
    500: "The server failed.",
    503: "Not ready, restarting, shutting down, or too many connections.",
    504: "The request took longer than the server allows.",
}
_EVERYWHERE: Final = (400, 405, 408, 431, 500, 503)
_WITH_BODY: Final = (413, 415)
_GENERATING: Final = (429, 504)


def error_responses() -> dict[str, Any]:
    """By name, for the document's components."""
    return {f"Error{status}": _error(status, meaning) for status, meaning in _MEANINGS.items()}


def _error(status: int, meaning: str) -> dict[str, Any]:
    response: dict[str, Any] = {"description": meaning, **_json(reference("Error"))}
    if status in (429, 503):
        response["headers"] = {"Retry-After": {"description": "Seconds.", "schema": integer("", 0)}}
    if status == 401:
        response["headers"] = {"WWW-Authenticate": {"schema": text()}}
    if status == 405:
        response["headers"] = {"Allow": {"schema": text()}}
    return response


def get(name: str, meaning: str, answer: Schema, *, errors: Iterable[int] = (), **more: Any) -> Operation:
    """An answer in JSON."""
    return {"operationId": name, "summary": meaning, **more, "responses": _responses(_success(answer), errors)}


def get_other(name: str, meaning: str, content_type: str, *, unchanged: bool = False) -> Operation:
    """An answer in another form. `unchanged`: a client that has it already may be told so."""
    success = {"description": meaning, "content": {content_type: {"schema": text()}}}
    responses = _responses(success, ())
    if unchanged:
        responses["304"] = {"description": "As if-none-match has it."}
    return {"operationId": name, "summary": meaning, "responses": responses}


def post(name: str, meaning: str, request: str, answer: Schema, *, errors: Iterable[int]) -> Operation:
    body = {"required": True, **_json(reference(request))}
    success = _success(answer)
    responses = _responses(success, [*_WITH_BODY, *errors])
    return {"operationId": name, "summary": meaning, "requestBody": body, "responses": responses}


def generating(
    name: str, meaning: str, request: str, *, whole: str | None, event: str | None, errors: Iterable[int]
) -> Operation:
    """`whole` and `event` are the schemas of the answer in one piece and of a stream's events."""
    operation = post(name, meaning, request, {}, errors=[*errors, *_GENERATING])
    content: dict[str, Any] = {}
    if whole is not None:
        content |= _json(reference(whole))["content"]
    if event is not None:
        content["text/event-stream"] = {"schema": _stream(event), "x-ringserve-event": reference(event)}
    operation["responses"]["200"]["content"] = content
    timings = "Times of the request in ms, where the request's header asks for them."
    operation["responses"]["200"]["headers"]["x-ttft-ms"] = {"description": timings, "schema": text()}
    operation["parameters"] = [
        _header(TIMINGS, "1: the answer tells times in headers x-…-ms."),
        _header(REQUEST_ID, "A name for the request, up to 128 visible characters; another is passed over."),
    ]
    return operation


def _stream(event: str) -> Schema:
    """Of one event, as OpenAPI 3.2 has it in `itemSchema`; 3.1 has no word for it."""
    if event.startswith("Generate"):
        return {"description": f"No server-sent events, but a line per token, each a {event}."}
    content = {"contentMediaType": "application/json", "contentSchema": any_of(reference(event), reference("Error"))}
    data = any_of(only("[DONE]"), {"type": "string", **content})
    meaning = f"One server-sent event: a {event}, or an Error that ends the stream, or [DONE] at its end."
    return {"type": "object", "properties": {"data": data}, "required": ["data"], "description": meaning}


def _header(name: bytes, meaning: str) -> dict[str, Any]:
    return {"name": name.decode(), "in": "header", "required": False, "description": meaning, "schema": text()}


def _success(answer: Schema) -> dict[str, Any]:
    request_id = {"description": "The request's own, or a new one.", "schema": text()}
    return {"description": "Done.", **_json(answer), "headers": {REQUEST_ID.decode(): request_id}}


def _json(schema: Schema) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _responses(success: dict[str, Any], errors: Iterable[int]) -> dict[str, Any]:
    every = sorted({*_EVERYWHERE, *errors})
    return {"200": success, **{str(status): {"$ref": f"#/components/responses/Error{status}"} for status in every}}
