"""Answers of every API, as /openapi.json describes them; tests hold real ones against this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeline.front.api.openapi.anthropic import ANTHROPIC
from pipeline.front.api.openapi.parts import COUNT, LOGPROB, NULL, TEXT, list_of, one_of, or_null, record, reference
from pipeline.front.api.openapi.responses import RESPONSES
from pipeline.front.api.schema import Schema

_SOME: Final[Schema] = {"type": "integer", "minimum": 1}


def _openai(prefix: str, kind: str, choice: Schema, optional: Mapping[str, Schema] | None = None) -> Schema:
    heading = {"id": {**TEXT, "pattern": f"^{prefix}-[0-9a-f]{{32}}$"}, "object": one_of(kind)}
    created = {**COUNT, "description": "Unix time in seconds."}
    members = {**heading, "created": created, "model": TEXT, "choices": list_of(choice), "usage": reference("Usage")}
    return record(optional, **members)


def _event(prefix: str, kind: str, choice: Schema) -> Schema:
    """Only some events have counts."""
    schema = _openai(prefix, kind, choice)
    schema["properties"]["usage"] = or_null(reference("Usage"))
    schema["required"].remove("usage")
    return schema


_SECONDS: Final[Schema] = {"type": "number", "minimum": 0, "description": "In s; if the request asked for timings."}
_ORIGIN = list_of(record(**{"from": COUNT}, id=TEXT), description="From which token on it has which weights.")
_TIMES = {f"{name}_time": _SECONDS for name in ("queue", "prompt", "completion", "total", "device", "host")}
_TIMES["weights"] = list_of(_ORIGIN, description="Of each choice; if the request asked for timings.")
_NS: Final[Schema] = {**COUNT, "description": "In ns."}
_PROGRESS = "Where sizes of steps are still being compiled for, between two steps."
_WEIGHTS_ID = {**TEXT, "description": "Id of the weights that it computes with, or did last."}
_REPLICAS = list_of(
    record(
        replica=COUNT,
        state=one_of("ok", "starting", "hung", "restarting"),
        generation={**COUNT, "description": "Sets of rings that it has been given."},
        weights=_WEIGHTS_ID,
    ),
    description="Where there are several.",
)


def _ollama(**text: Schema) -> Schema:
    """Only the last line of a stream has a reason, counts and times."""
    durations = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
    counts = dict.fromkeys(("prompt_eval_count", "eval_count"), COUNT)
    times = dict.fromkeys(durations, _NS)
    heading = {"model": TEXT, "created_at": _TIME}
    end = {"done_reason": one_of("stop", "length", "load"), **counts, **times}
    schema = record(**heading, **text, done={"type": "boolean"}, **end, logprobs=list_of(reference("OllamaLogprob")))
    return {**schema, "required": [*heading, next(iter(text)), "done"]}


_OLLAMA_CALL = record(function=record(name=TEXT, arguments={"type": "object"}))
_OLLAMA_MESSAGE = {
    **record(role=one_of("assistant"), content=TEXT, thinking=TEXT, tool_calls=list_of(_OLLAMA_CALL)),
    "required": ["role", "content"],
}
_TIME: Final[Schema] = {**TEXT, "format": "date-time"}
_OLLAMA_MODEL = {"name": TEXT, "model": TEXT, "size": COUNT, "digest": {**TEXT, "pattern": "^[0-9a-f]{64}$"}}
_OLLAMA_MODEL = {**_OLLAMA_MODEL, "details": reference("OllamaDetails")}
_REASON = one_of("stop", "length")
_SCORES = or_null({"type": "object", "additionalProperties": reference("ScoredToken")})
_SCORED = {"prompt_logprobs": {**list_of(_SCORES, minItems=1), "description": "By token id; null: the first token."}}
_PIECE = {"index": COUNT, "text": TEXT, "logprobs": or_null(reference("CompletionLogprobs"))}
_CHOICE = {"index": COUNT, "logprobs": or_null(reference("ChatLogprobs"))}
_CHAT_REASON = one_of("stop", "length", "tool_calls")
_THOUGHTS = {"reasoning_content": {**TEXT, "description": "What the model wrote before its answer, where known."}}


def _call(**more: Schema) -> Schema:
    """Of a function, whose arguments are JSON, or of a custom tool."""
    function = record(name=TEXT, arguments={**TEXT, "description": "JSON."})
    inner = {"function": function, "custom": record(name=TEXT, input=TEXT)}
    id_ = {**TEXT, "pattern": "^call_[0-9a-f]{24}$"}
    return {"anyOf": [record(**more, id=id_, type=one_of(kind), **{kind: one}) for kind, one in inner.items()]}


def _call_piece() -> Schema:
    """Its beginning, or more of what it is called with."""
    more = {"function": record(arguments=TEXT), "custom": record(input=TEXT)}
    return {"anyOf": [_call(index=COUNT), *(record(index=COUNT, **{kind: one}) for kind, one in more.items())]}


_ONE_PIECE = list_of(_call_piece(), minItems=1, maxItems=1)
_DELTA = {**record(role=one_of("assistant"), content=TEXT, **_THOUGHTS, tool_calls=_ONE_PIECE), "required": []}
_MESSAGE = {
    **record(role=one_of("assistant"), content=or_null(TEXT), refusal=NULL, **_THOUGHTS, tool_calls=list_of(_call())),
    "required": ["role", "content", "refusal"],
}
_TOKEN = {"token": TEXT, "logprob": LOGPROB, "bytes": list_of({"type": "integer", "minimum": 0, "maximum": 255})}
_GENERATED = reference("GeneratedToken")
_ONE_TOKEN = list_of(_GENERATED, minItems=1, maxItems=1)
_GENERATION = record(
    generated_text=TEXT,
    finish_reason=one_of("length", "eos", "stop"),
    generated_tokens=_SOME,
    prefill=list_of(_GENERATED, minItems=1),
    seed={"type": "integer", "description": "The request's seed; 0 if it had none."},
    tokens=list_of(_GENERATED, minItems=1),
    top_tokens=list_of(_ONE_TOKEN, minItems=1, maxItems=1),
    details=or_null(reference("GenerateDetails")),
)
_LINE = {"event": one_of("message"), "retry": one_of(30000)}
_INFO = dict.fromkeys(
    ("docker_label", "model_device_type", "model_dtype", "model_id", "version"), TEXT
) | dict.fromkeys(
    ("max_batch_total_tokens", "max_concurrent_requests", "max_input_length", "max_total_tokens"), COUNT
)

ANSWERS: Final[dict[str, Schema]] = {
    "Error": record(error=reference("ErrorDetail")),
    "ErrorDetail": record(message=TEXT, type=TEXT, param=or_null(TEXT), code=or_null(TEXT)),
    "Usage": record(
        _TIMES,
        prompt_tokens=COUNT,
        completion_tokens=COUNT,
        total_tokens=COUNT,
        prompt_tokens_details=record(
            cached_tokens={**COUNT, "description": "Prompt tokens found in the prefix cache."}
        ),
    ),
    "Weights": record(
        state=one_of("idle", "checking", "replacing"),
        replicas=list_of(
            record(
                {"node": {**TEXT, "description": "Of a router: where it is."}},
                replica=COUNT,
                weights=_WEIGHTS_ID,
                serves={"type": "boolean"},
            )
        ),
        change=or_null(reference("WeightsChange")),
    ),
    "WeightsChange": record(
        folder={**TEXT, "description": "As it was given."},
        weights={**TEXT, "description": "Their id; empty until the folder has been looked at."},
        replica={**or_null(COUNT), "description": "Whose turn it is, or was when it failed."},
        done={**list_of(COUNT), "description": "Replicas that serve with them."},
        outcome=one_of("under way", "done", "refused", "rolled back"),
        error={**TEXT, "description": "Why it was refused, or rolled back."},
    ),
    "KeysUsage": record(object=one_of("list"), data=list_of(reference("KeyUsage"))),
    "KeyUsage": record(
        object=one_of("usage"),
        key={**or_null(TEXT), "description": "The key's name: the beginning of its SHA-256; null: no key is needed."},
        requests=COUNT,
        prompt_tokens=COUNT,
        cached_tokens=COUNT,
        completion_tokens=COUNT,
        device_seconds={"type": "number", "minimum": 0},
    ),
    "Completion": _openai("cmpl", "text_completion", record(_SCORED, **_PIECE, finish_reason=_REASON)),
    "CompletionEvent": _event("cmpl", "text_completion", record(**_PIECE, finish_reason=or_null(_REASON))),
    "CompletionLogprobs": record(
        text_offset=list_of(COUNT),
        token_logprobs=list_of({**or_null(LOGPROB), "description": "null: the first token of a prompt."}),
        tokens=list_of(TEXT),
        top_logprobs=list_of(or_null({"type": "object", "additionalProperties": LOGPROB})),
    ),
    "ChatCompletion": _openai(
        "chatcmpl",
        "chat.completion",
        record(
            **_CHOICE,
            message=_MESSAGE,
            finish_reason=_CHAT_REASON,
        ),
        _SCORED,
    ),
    "ChatEvent": _event(
        "chatcmpl", "chat.completion.chunk", record(**_CHOICE, delta=_DELTA, finish_reason=or_null(_CHAT_REASON))
    ),
    "ScoredToken": record(logprob=LOGPROB, rank=or_null(_SOME), decoded_token=TEXT),
    "ChatLogprobs": record(content=list_of(record(**_TOKEN, top_logprobs=list_of(record(**_TOKEN)))), refusal=NULL),
    **RESPONSES,
    **ANTHROPIC,
    "Models": record(object=one_of("list"), data=list_of(reference("Model"))),
    "Model": record(
        id=TEXT,
        object=one_of("model"),
        created=COUNT,
        owned_by=one_of("ringserve"),
        root=TEXT,
        parent={**or_null(TEXT), "description": "Of an adapter: its model."},
        max_model_len={**_SOME, "description": "Tokens of prompt and answer together."},
        permission=list_of({}, maxItems=0),
    ),
    "Tokens": record(count=COUNT, max_model_len=_SOME, tokens=list_of(COUNT), token_strs=or_null(list_of(TEXT))),
    "Text": record(prompt=TEXT),
    "GeneratedToken": record(
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
        **record(**_LINE, data={"anyOf": [reference(f"Generate{part}") for part in ("Step", "End", "Failure")]}),
        "description": 'A line of a stream; with return_protocol "raw" it is `data:` and the value of `data` alone.',
    },
    "GenerateStep": {
        **record(details=NULL, generated_text=TEXT, tokens=_GENERATED, top_tokens=list_of(_GENERATED)),
        "description": "One token.",
    },
    "GenerateEnd": {**_GENERATION, "description": "The last line, with return_full_text."},
    "GenerateDetails": record(
        finish_reason=one_of("length", "eos_token", "stop_sequence"),
        generated_tokens=_SOME,
        seed={"type": "integer"},
        prefill=list_of(_GENERATED),
        tokens=list_of(_GENERATED, minItems=1),
    ),
    "GenerateFailure": {
        **record(
            details=NULL,
            generated_text=one_of(""),
            finish_reason=one_of("predict_failed"),
            error=reference("ErrorDetail"),
        ),
        "description": "The last line of a stream that failed.",
    },
    "OllamaError": record(error=TEXT),
    "OllamaChatLine": _ollama(message=_OLLAMA_MESSAGE),
    "OllamaGenerateLine": _ollama(response=TEXT, thinking=TEXT),
    "OllamaLogprob": record(**_TOKEN, top_logprobs=list_of(record(**_TOKEN))),
    "OllamaModels": record(models=list_of(record(**_OLLAMA_MODEL, modified_at=_TIME))),
    "OllamaRunning": record(
        models=list_of(record(**_OLLAMA_MODEL, expires_at=_TIME, size_vram=COUNT, context_length=_SOME))
    ),
    "OllamaModel": record(
        modelfile=TEXT,
        parameters=TEXT,
        template={**TEXT, "description": "The chat template, in Jinja."},
        details=reference("OllamaDetails"),
        model_info={"type": "object", "additionalProperties": {"type": ["string", "integer"]}},
        capabilities=list_of(one_of("completion", "tools", "thinking")),
        modified_at=_TIME,
    ),
    "OllamaDetails": record(
        **dict.fromkeys(("parent_model", "format", "family", "parameter_size", "quantization_level"), TEXT),
        families=list_of(TEXT),
        context_length=_SOME,
    ),
    "TokenizerInfo": record(
        tokenizer_class=or_null(TEXT),
        vocab_size=_SOME,
        model_max_length=_SOME,
        **dict.fromkeys(("bos_token", "eos_token", "pad_token"), or_null(TEXT)),
        all_special_tokens=list_of(TEXT),
        chat_template={**or_null(TEXT), "description": "In Jinja."},
    ),
    "Load": record(server_load=COUNT),
    "CancelledRequest": record(id=TEXT, object=one_of("request"), cancelled=_SOME),
    "CancelledResponse": record(id=TEXT, object=one_of("response"), status=one_of("cancelled")),
    "Deleted": record(id=TEXT, object=one_of("stream", "response"), deleted=one_of(True)),
    "Number": record(**_LINE, data=COUNT),
    "ModelInfo": record(**_INFO, model_pipeline_tag=one_of("text-generation")),
    "Version": record(version=TEXT),
    "Alive": record({"replicas": _REPLICAS}, status=one_of("alive", "degraded")),
    "Ready": record({"progress": {**TEXT, "description": _PROGRESS}, "replicas": _REPLICAS}, status=one_of("ready")),
}

ROUTERS_ANSWERS: Final[dict[str, Schema]] = {
    "NodeList": record(object=one_of("list"), data=list_of(reference("Node"))),
    "Node": record(
        object=one_of("node"),
        node={**TEXT, "description": "Its host and port."},
        state=one_of("linked", "not linked", "leaving", "waits for the place of one that leaves"),
        replicas_up=COUNT,
        requests={**COUNT, "description": "Of this router, that are there."},
    ),
}
