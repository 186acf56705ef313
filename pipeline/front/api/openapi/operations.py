"""Operations: a method of a path, with its request and every answer that it may give."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel

from pipeline.front.api.openapi.answers import Error, GenerateEvent
from pipeline.front.api.schema import REFERENCE, Schema
from pipeline.front.delivery.generation import TIMINGS
from pipeline.front.http.exchange import REQUEST_ID

Operation = dict[str, Any]
Model = type[BaseModel]

_TEXT: Final[Schema] = {"type": "string"}

_MEANINGS: Final = {
    400: "The request is invalid; `param` names the parameter.",
    401: "The API key is missing or not valid.",
    403: "Not allowed for this client.",
    404: "Unknown path or model.",
    405: "Wrong method; the header Allow lists the right ones.",
    408: "The request took too long to arrive.",
    413: "The body is too large.",
    415: "The body is compressed, which is not supported.",
    422: "A parameter is invalid; `param` names it.",
    429: "The queue is full; try again later.",
    431: "The headers are too large or too many.",
    500: "The server failed.",
    503: "Not ready, restarting, shutting down, or too many connections; try again later.",
    504: "The request took longer than the server's `request_timeout_s`.",
}
_EVERYWHERE: Final = (400, 405, 408, 431, 500, 503)
_WITH_BODY: Final = (413, 415)
_GENERATING: Final = (429, 504)


def error_responses() -> dict[str, Any]:
    """By name, for the document's components."""
    return {f"Error{status}": _error(status, meaning) for status, meaning in _MEANINGS.items()}


def _error(status: int, meaning: str) -> dict[str, Any]:
    response: dict[str, Any] = {"description": meaning, **_json(reference(Error))}
    if status in (429, 503):
        response["headers"] = {
            "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}
        }
    if status == 401:
        response["headers"] = {"WWW-Authenticate": {"schema": _TEXT}}
    if status == 405:
        response["headers"] = {"Allow": {"schema": _TEXT}}
    return response


def reference(model: Model) -> Schema:
    return {"$ref": REFERENCE + model.__name__}


def get(
    name: str, meaning: str, answer: Model | None = None, *, errors: Iterable[int] = (), **more: Any
) -> Operation:
    """An answer in JSON; None: any object."""
    success = _success({"type": "object"} if answer is None else reference(answer))
    return {"operationId": name, "summary": meaning, **more, "responses": _responses(success, errors)}


def get_other(name: str, meaning: str, content_type: str, *, unchanged: bool = False) -> Operation:
    """An answer that is not JSON. `unchanged`: may be 304 for a client that has it already."""
    success = {"description": meaning, "content": {content_type: {"schema": _TEXT}}}
    responses = _responses(success, ())
    if unchanged:
        responses["304"] = {"description": "Not modified: the ETag equals If-None-Match."}
    return {"operationId": name, "summary": meaning, "responses": responses}


def post(
    name: str, meaning: str, *requests: Model, answer: Model | None = None, errors: Iterable[int] = (404,)
) -> Operation:
    """The body is one of `requests`."""
    choices = [reference(one) for one in requests]
    body = {"required": True, **_json({"anyOf": choices} if len(choices) > 1 else choices[0])}
    responses = _responses(_success({} if answer is None else reference(answer)), [*_WITH_BODY, *errors])
    return {"operationId": name, "summary": meaning, "requestBody": body, "responses": responses}


def generating(
    name: str,
    meaning: str,
    request: Model,
    *,
    whole: Model | None,
    event: Model | None,
    errors: Iterable[int] = (404,),
) -> Operation:
    """`whole` and `event` are the answer in one piece and the events of a stream."""
    operation = post(name, meaning, request, errors=[*errors, *_GENERATING])
    content: dict[str, Any] = {}
    if whole is not None:
        content |= _json(reference(whole))["content"]
    if event is not None:
        content["text/event-stream"] = {"schema": _stream(event), "x-ringserve-event": reference(event)}
    operation["responses"]["200"]["content"] = content
    timings = f"Timings of the request in ms, if it had the header {TIMINGS.decode()}: 1."
    operation["responses"]["200"]["headers"]["x-ttft-ms"] = {"description": timings, "schema": _TEXT}
    operation["parameters"] = [
        _header(TIMINGS, "1: return timings in the answer's headers x-…-ms."),
        _header(
            REQUEST_ID,
            "Id of the request for logs and for the answer's header, up to 128 visible ASCII characters; ignored if "
            "invalid.",
        ),
    ]
    return operation


def _stream(event: Model) -> Schema:
    """Schema of one event, as OpenAPI 3.2's `itemSchema`, which 3.1 lacks."""
    if event is GenerateEvent:
        return {"description": f"A line per token, each a {event.__name__}; not server-sent events."}
    content = {"anyOf": [reference(event), reference(Error)]}
    piece = {"type": "string", "contentMediaType": "application/json", "contentSchema": content}
    data = {"anyOf": [{"const": "[DONE]"}, piece]}
    meaning = f"One server-sent event: a {event.__name__}, an Error that ends the stream, or [DONE] at its end."
    return {"type": "object", "properties": {"data": data}, "required": ["data"], "description": meaning}


def _header(name: bytes, meaning: str) -> dict[str, Any]:
    return {"name": name.decode(), "in": "header", "required": False, "description": meaning, "schema": _TEXT}


def _success(answer: Schema) -> dict[str, Any]:
    request_id = {"description": "The request's own id, or a new one.", "schema": _TEXT}
    return {"description": "Success.", **_json(answer), "headers": {REQUEST_ID.decode(): request_id}}


def _json(schema: Schema) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _responses(success: dict[str, Any], errors: Iterable[int]) -> dict[str, Any]:
    every = sorted({*_EVERYWHERE, *errors})
    return {"200": success, **{str(status): {"$ref": f"#/components/responses/Error{status}"} for status in every}}
