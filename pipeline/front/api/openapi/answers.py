"""Answers of every API, as /openapi.json describes them; tests hold real ones against this."""

from __future__ import annotations

from typing import Final

from pipeline.front.api.openapi.anthropic import ANTHROPIC
from pipeline.front.api.openapi.parts import COUNT, TEXT, reference
from pipeline.front.api.openapi.parts import LOGPROB as _LOGPROB
from pipeline.front.api.openapi.parts import NULL as _NULL
from pipeline.front.api.openapi.parts import list_of as _list
from pipeline.front.api.openapi.parts import one_of as _one_of
from pipeline.front.api.openapi.parts import or_null as _or_null
from pipeline.front.api.openapi.parts import record as _record
from pipeline.front.api.openapi.responses import RESPONSES
from pipeline.front.api.schema import Schema

_SOME: Final[Schema] = {"type": "integer", "minimum": 1}


def _openai(prefix: str, kind: str, choice: Schema) -> Schema:
    heading = {"id": {**TEXT, "pattern": f"^{prefix}-[0-9a-f]{{32}}$"}, "object": _one_of(kind)}
    created = {**COUNT, "description": "Unix time in seconds."}
    return _record(**heading, created=created, model=TEXT, choices=_list(choice), usage=reference("Usage"))


def _event(prefix: str, kind: str, choice: Schema) -> Schema:
    """Only some events have counts."""
    schema = _openai(prefix, kind, choice)
    schema["properties"]["usage"] = _or_null(reference("Usage"))
    schema["required"].remove("usage")
    return schema


_NS: Final[Schema] = {**COUNT, "description": "In ns."}


def _ollama(**text: Schema) -> Schema:
    """Only the last line of a stream has a reason, counts and times."""
    durations = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
    counts = dict.fromkeys(("prompt_eval_count", "eval_count"), COUNT)
    times = dict.fromkeys(durations, _NS)
    heading = {"model": TEXT, "created_at": _TIME}
    end = {"done_reason": _one_of("stop", "length", "load"), **counts, **times}
    schema = _record(**heading, **text, done={"type": "boolean"}, **end, logprobs=_list(reference("OllamaLogprob")))
    return {**schema, "required": [*heading, next(iter(text)), "done"]}


_OLLAMA_CALL = _record(function=_record(name=TEXT, arguments={"type": "object"}))
_OLLAMA_MESSAGE = {
    **_record(role=_one_of("assistant"), content=TEXT, thinking=TEXT, tool_calls=_list(_OLLAMA_CALL)),
    "required": ["role", "content"],
}
_TIME: Final[Schema] = {**TEXT, "format": "date-time"}
_OLLAMA_MODEL = {"name": TEXT, "model": TEXT, "size": COUNT, "digest": {**TEXT, "pattern": "^[0-9a-f]{64}$"}}
_OLLAMA_MODEL = {**_OLLAMA_MODEL, "details": reference("OllamaDetails")}
_REASON = _one_of("stop", "length")
_PIECE = {"index": COUNT, "text": TEXT, "logprobs": _or_null(reference("CompletionLogprobs"))}
_CHOICE = {"index": COUNT, "logprobs": _or_null(reference("ChatLogprobs"))}
_CHAT_REASON = _one_of("stop", "length", "tool_calls")
_THOUGHTS = {"reasoning_content": {**TEXT, "description": "What the model wrote before its answer, where known."}}


def _call(**more: Schema) -> Schema:
    """Of a function, whose arguments are JSON, or of a custom tool."""
    function = _record(name=TEXT, arguments={**TEXT, "description": "JSON."})
    inner = {"function": function, "custom": _record(name=TEXT, input=TEXT)}
    id_ = {**TEXT, "pattern": "^call_[0-9a-f]{24}$"}
    return {"anyOf": [_record(**more, id=id_, type=_one_of(kind), **{kind: one}) for kind, one in inner.items()]}


def _call_piece() -> Schema:
    """Its beginning, or more of what it is called with."""
    more = {"function": _record(arguments=TEXT), "custom": _record(input=TEXT)}
    return {"anyOf": [_call(index=COUNT), *(_record(index=COUNT, **{kind: one}) for kind, one in more.items())]}


_ONE_PIECE = _list(_call_piece(), minItems=1, maxItems=1)
_DELTA = {**_record(role=_one_of("assistant"), content=TEXT, **_THOUGHTS, tool_calls=_ONE_PIECE), "required": []}
_MESSAGE = {
    **_record(
        role=_one_of("assistant"), content=_or_null(TEXT), refusal=_NULL, **_THOUGHTS, tool_calls=_list(_call())
    ),
    "required": ["role", "content", "refusal"],
}
_TOKEN = {"token": TEXT, "logprob": _LOGPROB, "bytes": _list({"type": "integer", "minimum": 0, "maximum": 255})}
_GENERATED = reference("GeneratedToken")
_ONE_TOKEN = _list(_GENERATED, minItems=1, maxItems=1)
_GENERATION = _record(
    generated_text=TEXT,
    finish_reason=_one_of("length", "eos", "stop"),
    generated_tokens=_SOME,
    prefill=_ONE_TOKEN,
    seed={"type": "integer", "description": "The request's seed; 0 if it had none."},
    tokens=_list(_GENERATED, minItems=1),
    top_tokens=_list(_ONE_TOKEN, minItems=1, maxItems=1),
    details=_NULL,
)
_LINE = {"event": _one_of("message"), "retry": _one_of(30000)}
_INFO = dict.fromkeys(
    ("docker_label", "model_device_type", "model_dtype", "model_id", "version"), TEXT
) | dict.fromkeys(
    ("max_batch_total_tokens", "max_concurrent_requests", "max_input_length", "max_total_tokens"), COUNT
)

ANSWERS: Final[dict[str, Schema]] = {
    "Error": _record(error=reference("ErrorDetail")),
    "ErrorDetail": _record(message=TEXT, type=TEXT, param=_or_null(TEXT), code=_or_null(TEXT)),
    "Usage": _record(
        prompt_tokens=COUNT,
        completion_tokens=COUNT,
        total_tokens=COUNT,
        prompt_tokens_details=_record(
            cached_tokens={**COUNT, "description": "Prompt tokens found in the prefix cache."}
        ),
    ),
    "Completion": _openai("cmpl", "text_completion", _record(**_PIECE, finish_reason=_REASON)),
    "CompletionEvent": _event("cmpl", "text_completion", _record(**_PIECE, finish_reason=_or_null(_REASON))),
    "CompletionLogprobs": _record(
        text_offset=_list(COUNT),
        token_logprobs=_list(_LOGPROB),
        tokens=_list(TEXT),
        top_logprobs=_list(_or_null({"type": "object", "additionalProperties": _LOGPROB})),
    ),
    "ChatCompletion": _openai(
        "chatcmpl",
        "chat.completion",
        _record(
            **_CHOICE,
            message=_MESSAGE,
            finish_reason=_CHAT_REASON,
        ),
    ),
    "ChatEvent": _event(
        "chatcmpl", "chat.completion.chunk", _record(**_CHOICE, delta=_DELTA, finish_reason=_or_null(_CHAT_REASON))
    ),
    "ChatLogprobs": _record(content=_list(_record(**_TOKEN, top_logprobs=_list(_record(**_TOKEN)))), refusal=_NULL),
    **RESPONSES,
    **ANTHROPIC,
    "Models": _record(object=_one_of("list"), data=_list(reference("Model"))),
    "Model": _record(
        id=TEXT,
        object=_one_of("model"),
        created=COUNT,
        owned_by=_one_of("ringserve"),
        root=TEXT,
        parent=_NULL,
        max_model_len={**_SOME, "description": "Tokens of prompt and answer together."},
        permission=_list({}, maxItems=0),
    ),
    "Tokens": _record(count=COUNT, max_model_len=_SOME, tokens=_list(COUNT), token_strs=_or_null(_list(TEXT))),
    "Text": _record(prompt=TEXT),
    "GeneratedToken": _record(
        id=COUNT,
        logprob={
            "type": ["number", "null"],
            "description": "The log-probability, or if so set the logit.",
        },
        special={"type": "boolean", "description": "The token has no text, or only a part of a character."},
        text=TEXT,
    ),
    "GenerateAnswer": _GENERATION,
    "GenerateEvent": {
        **_record(**_LINE, data={"anyOf": [reference(f"Generate{part}") for part in ("Step", "End", "Failure")]}),
        "description": 'A line of a stream; with return_protocol "raw" it is `data:` and the value of `data` alone.',
    },
    "GenerateStep": {
        **_record(details=_NULL, generated_text=TEXT, tokens=_GENERATED, top_tokens=_list(_GENERATED)),
        "description": "One token.",
    },
    "GenerateEnd": {**_GENERATION, "description": "The last line, with return_full_text."},
    "GenerateFailure": {
        **_record(
            details=_NULL,
            generated_text=_one_of(""),
            finish_reason=_one_of("predict_failed"),
            error=reference("ErrorDetail"),
        ),
        "description": "The last line of a stream that failed.",
    },
    "OllamaError": _record(error=TEXT),
    "OllamaChatLine": _ollama(message=_OLLAMA_MESSAGE),
    "OllamaGenerateLine": _ollama(response=TEXT, thinking=TEXT),
    "OllamaLogprob": _record(**_TOKEN, top_logprobs=_list(_record(**_TOKEN))),
    "OllamaModels": _record(models=_list(_record(**_OLLAMA_MODEL, modified_at=_TIME))),
    "OllamaRunning": _record(
        models=_list(_record(**_OLLAMA_MODEL, expires_at=_TIME, size_vram=COUNT, context_length=_SOME))
    ),
    "OllamaModel": _record(
        modelfile=TEXT,
        parameters=TEXT,
        template={**TEXT, "description": "The chat template, in Jinja."},
        details=reference("OllamaDetails"),
        model_info={"type": "object", "additionalProperties": {"type": ["string", "integer"]}},
        capabilities=_list(_one_of("completion", "tools", "thinking")),
        modified_at=_TIME,
    ),
    "OllamaDetails": _record(
        **dict.fromkeys(("parent_model", "format", "family", "parameter_size", "quantization_level"), TEXT),
        families=_list(TEXT),
        context_length=_SOME,
    ),
    "TokenizerInfo": _record(
        tokenizer_class=_or_null(TEXT),
        vocab_size=_SOME,
        model_max_length=_SOME,
        **dict.fromkeys(("bos_token", "eos_token", "pad_token"), _or_null(TEXT)),
        all_special_tokens=_list(TEXT),
        chat_template={**_or_null(TEXT), "description": "In Jinja."},
    ),
    "Load": _record(server_load=COUNT),
    "Number": _record(**_LINE, data=COUNT),
    "ModelInfo": _record(**_INFO, model_pipeline_tag=_one_of("text-generation")),
    "Version": _record(version=TEXT),
    "Alive": _record(status=_one_of("alive")),
    "Ready": _record(status=_one_of("ready")),
}
