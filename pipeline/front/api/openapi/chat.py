"""OpenAI's /v1/chat/completions."""

from __future__ import annotations

from pipeline.front.api.openai.chat import MAX_TOP_LOGPROBS, TEXT_ONLY
from pipeline.front.api.openapi.openai import common_parameters, finish_reason, heading
from pipeline.front.api.openapi.schema import (
    Schema,
    any_of,
    array,
    body,
    boolean,
    integer,
    mapping,
    nullable,
    number,
    one_value,
    only,
    record,
    reference,
    text,
)
from pipeline.front.settings import FrontSettings


def chat_schemas(settings: FrontSettings) -> dict[str, Schema]:
    event = heading("chat.completion.chunk", "chatcmpl", _event_choice(), usage=nullable(reference("Usage")))
    return {
        "ChatRequest": body(_parameters(settings), ["messages"]),
        "ChatMessage": _message(),
        "ChatCompletion": record(heading("chat.completion", "chatcmpl", _choice(), usage=reference("Usage"))),
        "ChatEvent": record(event, [name for name in event if name != "usage"]),
        "ChatLogprobs": record({"content": array(_token(_token())), "refusal": only(None)}),
    }


def template_parameters(settings: FrontSettings) -> dict[str, Schema]:
    """Parameters from which the prompt is rendered."""
    return {
        "messages": array(
            reference("ChatMessage"),
            f"The conversation; rendered, at most {settings.max_prompt} tokens.",
            minItems=1,
            maxItems=settings.max_prompt,
        ),
        "add_generation_prompt": boolean(
            "Add the template's start of an assistant message to the prompt; false: it ends with the last message.",
            default=True,
        ),
        "continue_final_message": boolean(
            "Continue the last message; add_generation_prompt must be false then.", default=False
        ),
        "chat_template_kwargs": mapping(True, "More variables for the model's chat template.", default={}),
    }


def _parameters(settings: FrontSettings) -> dict[str, Schema]:
    limit = integer("Most tokens to generate; by default as many as fit.", 1, settings.max_length)
    return {
        **template_parameters(settings),
        "max_completion_tokens": limit,
        "max_tokens": {**limit, "description": "Older name of max_completion_tokens; both must be equal if given."},
        "logprobs": boolean("Return log-probabilities of the chosen tokens.", default=False),
        "top_logprobs": integer(
            "Return log-probabilities of this many most probable tokens, too; needs logprobs.",
            0,
            MAX_TOP_LOGPROBS,
            default=0,
        ),
        "add_special_tokens": boolean(
            "Add BOS before the rendered prompt; most templates write it themselves.", default=False
        ),
        "tools": array({}, "Not supported: answers are text, never tool calls.", maxItems=0),
        "functions": array({}, "Not supported: answers are text, never tool calls.", maxItems=0),
        **{name: one_value(values) for name, values in TEXT_ONLY.items()},
        **common_parameters(settings),
    }


def _message() -> Schema:
    part = {
        "type": "object",
        "properties": {"type": only("text"), "text": text()},
        "required": ["type", "text"],
    }
    return {
        "type": "object",
        "properties": {
            "role": text("A role of the model's chat template, such as user.", minLength=1),
            "content": any_of(text(), array(part, minItems=1), meaning="Text; parts are joined by newlines."),
            "name": any_of(
                text(), array({}, maxItems=0), {"type": "null"}, meaning="The author; most templates ignore it."
            ),
        },
        "required": ["role", "content"],
        "additionalProperties": only(None, [], meaning="Not supported."),
    }


def _choice() -> Schema:
    message = record({"role": only("assistant"), "content": text(), "refusal": only(None)})
    logprobs = nullable(reference("ChatLogprobs"))
    fields = {"index": integer("", 0), "message": message, "logprobs": logprobs, "finish_reason": finish_reason()}
    return record(fields)


def _event_choice() -> Schema:
    delta = record({"role": only("assistant"), "content": text()}, [])
    logprobs, reason = nullable(reference("ChatLogprobs")), nullable(finish_reason())
    return record({"index": integer("", 0), "delta": delta, "logprobs": logprobs, "finish_reason": reason})


def _token(best: Schema | None = None) -> Schema:
    more = {} if best is None else {"top_logprobs": array(best)}
    byte = integer("", 0, 255)
    return record({"token": text(), "logprob": number("", -9999, 0), "bytes": array(byte), **more})
