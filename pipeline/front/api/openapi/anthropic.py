"""Answers of /v1/messages, as /openapi.json describes them."""

from __future__ import annotations

from typing import Any, Final

from pipeline.front.api.openapi.parts import COUNT, NULL, TEXT, list_of, one_of, or_null, record, reference
from pipeline.front.api.schema import Schema

_REASONS: Final = ("end_turn", "tool_use", "max_tokens", "stop_sequence", "model_context_window_exceeded")
_ERRORS: Final = (
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "request_too_large",
    "rate_limit_error",
    "timeout_error",
    "api_error",
    "overloaded_error",
)
_TOOL_USE: Final = {
    "id": {**TEXT, "pattern": "^toolu_[0-9a-f]{24}$"},
    "name": TEXT,
    "input": {"type": "object", "description": "Arguments that are no JSON object are in its member INVALID_JSON."},
}
_ENDS: Final = {"stop_reason": one_of(*_REASONS), "stop_sequence": or_null(TEXT)}
_USAGE: Final = record(
    input_tokens={**COUNT, "description": "Without those that were found in the prefix cache."},
    cache_creation_input_tokens={**one_of(0), "description": "Not counted."},
    cache_read_input_tokens=COUNT,
    output_tokens=COUNT,
)


def _message(content: Schema, **ends: Schema) -> Schema:
    return record(
        id={**TEXT, "pattern": "^msg_[0-9a-f]{32}$"},
        type=one_of("message"),
        role=one_of("assistant"),
        model=TEXT,
        content=content,
        **ends,
        usage=_USAGE,
    )


def _typed(kind: str, **members: Schema) -> Schema:
    return record(type=one_of(kind), **members)


def _events() -> list[Schema]:
    begun = _message(list_of({}, maxItems=0), stop_reason=NULL, stop_sequence=NULL)
    members: dict[str, str] = {
        "text_delta": "text",
        "thinking_delta": "thinking",
        "signature_delta": "signature",
        "input_json_delta": "partial_json",
    }
    pieces: dict[str, Any] = {"anyOf": [_typed(kind, **{member: TEXT}) for kind, member in members.items()]}
    return [
        _typed("message_start", message=begun),
        _typed("ping"),
        _typed("content_block_start", index=COUNT, content_block=reference("AnthropicBlock")),
        _typed("content_block_delta", index=COUNT, delta=pieces),
        _typed("content_block_stop", index=COUNT),
        _typed("message_delta", delta=record(**_ENDS), usage=_USAGE),
        _typed("message_stop"),
        _typed("error", error=_ERROR),
    ]


_DETAILS: Final = record(error_code=one_of("thread_unsupported_request"))
_ERROR: Final = {**record(type=one_of(*_ERRORS), message=TEXT, details=_DETAILS), "required": ["type", "message"]}

ANTHROPIC: Final[dict[str, Schema]] = {
    "AnthropicMessage": _message(list_of(reference("AnthropicBlock")), **_ENDS),
    "AnthropicBlock": {
        "anyOf": [
            _typed("text", text=TEXT),
            _typed("thinking", thinking=TEXT, signature=TEXT),
            _typed("tool_use", **_TOOL_USE),
        ]
    },
    "AnthropicEvent": {"anyOf": _events()},
    "AnthropicCount": record(input_tokens=COUNT),
    "AnthropicError": _typed("error", error=_ERROR, request_id=TEXT),
}
