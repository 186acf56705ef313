"""Answers of /v1/responses, as /openapi.json describes them."""

from __future__ import annotations

from typing import Any, Final

from pipeline.front.api.openapi.parts import COUNT, LOGPROB, TEXT, list_of, one_of, or_null, record, reference
from pipeline.front.api.schema import Schema

_STATUS: Final = one_of("in_progress", "completed", "incomplete")
_FLAG: Final[Schema] = {"type": "boolean"}
_NUMBER: Final[Schema] = {"type": "number"}
_OBJECT: Final[Schema] = {"type": "object"}
_CALL_ID: Final[Schema] = {**TEXT, "pattern": "^call_[0-9a-f]{24}$"}
_TOKEN = {"token": TEXT, "logprob": LOGPROB, "bytes": list_of({"type": "integer", "minimum": 0, "maximum": 255})}
_LOGPROBS = list_of(reference("ResponseLogprob"))


def _item(prefix: str, kind: str, **members: Schema) -> Schema:
    id_ = {**TEXT, "pattern": f"^{prefix}_[0-9a-f]{{34}}$"}
    return record(id=id_, type=one_of(kind), status=_STATUS, **members)


def _call(prefix: str, kind: str, text: str) -> Schema:
    """Only tools of a namespace have one."""
    schema = _item(prefix, kind, call_id=_CALL_ID, namespace=TEXT, name=TEXT, **{text: TEXT})
    schema["required"].remove("namespace")
    return schema


_TEXT_PART = record(type=one_of("output_text"), text=TEXT, annotations=list_of({}, maxItems=0), logprobs=_LOGPROBS)
_THOUGHTS_PART = record(type=one_of("reasoning_text"), text=TEXT)
_PART = {"anyOf": [_TEXT_PART, _THOUGHTS_PART]}
_ITEM = {
    "anyOf": [
        _item("msg", "message", role=one_of("assistant"), content=list_of(_TEXT_PART, maxItems=1)),
        _item(
            "rs",
            "reasoning",
            summary=list_of({}, maxItems=0),
            content=list_of(_THOUGHTS_PART, maxItems=1),
            encrypted_content={"type": "null"},
        ),
        _call("fc", "function_call", "arguments"),
        _call("ctc", "custom_tool_call", "input"),
    ]
}
_USAGE = record(
    input_tokens=COUNT,
    input_tokens_details=record(
        cached_tokens={**COUNT, "description": "Found in the prefix cache."},
        cache_write_tokens={**one_of(0), "description": "Not counted."},
    ),
    output_tokens=COUNT,
    output_tokens_details=record(reasoning_tokens=COUNT),
    total_tokens=COUNT,
)


def _event(*names: str, **members: Schema) -> Schema:
    return record(type=one_of(*(f"response.{name}" for name in names)), sequence_number=COUNT, **members)


def _events() -> list[Schema]:
    response, item = reference("Response"), {"output_index": COUNT, "item": reference("ResponseItem")}
    call = {"item_id": TEXT, "output_index": COUNT}
    part = {**call, "content_index": COUNT}
    arguments, of_input = "function_call_arguments", "custom_tool_call_input"
    return [
        _event("created", "in_progress", "completed", "incomplete", "failed", response=response),
        _event("output_item.added", "output_item.done", **item),
        _event("content_part.added", "content_part.done", **part, part=_PART),
        _event("output_text.delta", **part, delta=TEXT, logprobs=_LOGPROBS),
        _event("output_text.done", **part, text=TEXT, logprobs=_LOGPROBS),
        _event("reasoning_text.delta", **part, delta=TEXT),
        _event("reasoning_text.done", **part, text=TEXT),
        _event(f"{arguments}.delta", f"{of_input}.delta", **call, delta=TEXT),
        _event(f"{arguments}.done", **call, name=TEXT, arguments=TEXT),
        _event(f"{of_input}.done", **call, name=TEXT, input=TEXT),
    ]


_REPEATED: Final[dict[str, Any]] = {
    "instructions": or_null(TEXT),
    "max_output_tokens": or_null({"type": "integer"}),
    "metadata": {"type": "object", "additionalProperties": TEXT},
    "parallel_tool_calls": _FLAG,
    "reasoning": record(effort=or_null(TEXT), summary={}),
    "temperature": _NUMBER,
    "text": _OBJECT,
    "tool_choice": {"type": ["string", "object"]},
    "tools": list_of(_OBJECT),
    "top_logprobs": COUNT,
    "top_p": _NUMBER,
}

RESPONSES: Final[dict[str, Schema]] = {
    "Response": record(
        id={**TEXT, "pattern": "^resp_[0-9a-f]{32}$"},
        object=one_of("response"),
        created_at={**COUNT, "description": "Unix time in seconds."},
        status=one_of("queued", "in_progress", "completed", "incomplete", "failed", "cancelled"),
        error=or_null(record(code=TEXT, message=TEXT)),
        incomplete_details=or_null(record(reason=one_of("max_output_tokens"))),
        output=list_of(reference("ResponseItem")),
        usage=or_null(_USAGE),
        model=TEXT,
        background=one_of(False, True),
        previous_response_id={"type": "null"},
        store=one_of(False),
        truncation=one_of("disabled"),
        **_REPEATED,
    ),
    "ResponseItem": _ITEM,
    "ResponseLogprob": record(**_TOKEN, top_logprobs=list_of(record(**_TOKEN))),
    "ResponseEvent": {"anyOf": _events()},
}
