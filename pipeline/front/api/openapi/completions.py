"""OpenAI's /v1/completions."""

from __future__ import annotations

from pipeline.front.api.openai.completions import DEFAULT_TOKENS
from pipeline.front.api.openai.fields import MAX_CHOICES
from pipeline.front.api.openapi.openai import common_parameters, finish_reason, heading
from pipeline.front.api.openapi.sampling import token_id
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
    only,
    record,
    reference,
    text,
)
from pipeline.front.settings import FrontSettings


def completion_schemas(settings: FrontSettings) -> dict[str, Schema]:
    choice = _choice(finish_reason())
    event = heading("text_completion", "cmpl", _choice(nullable(finish_reason())), usage=_event_usage())
    return {
        "CompletionRequest": body(_parameters(settings), ["prompt"]),
        "Completion": record(heading("text_completion", "cmpl", choice, usage=reference("Usage"))),
        "CompletionEvent": record(event, [name for name in event if name != "usage"]),
        "CompletionLogprobs": _logprobs(),
    }


def _event_usage() -> Schema:
    return nullable(reference("Usage"))


def _parameters(settings: FrontSettings) -> dict[str, Schema]:
    longest = settings.max_length
    ids = array(token_id(settings), minItems=1)
    prompts = (text(), ids, array(text(), minItems=1), array(ids, minItems=1))
    most = f"Each has at most {settings.max_prompt} tokens."
    return {
        "prompt": any_of(*prompts, meaning=f"One prompt or a list of prompts, as text or token ids. {most}"),
        "max_tokens": integer(
            "Most tokens to generate. The default is reduced to what fits.",
            1,
            longest,
            default=min(DEFAULT_TOKENS, longest),
        ),
        "logprobs": integer(
            "Return log-probabilities of the chosen token and of this many most probable ones.",
            0,
            min(20, settings.vocab_size),
        ),
        "echo": boolean("Begin the text with the prompt; not together with logprobs.", default=False),
        "best_of": integer("Must equal n: answers are not ranked.", 1, MAX_CHOICES),
        "suffix": only("", meaning="Not supported: text can't be inserted before a suffix."),
        "add_special_tokens": boolean("Add BOS before a text prompt.", default=True),
        **common_parameters(settings),
    }


def _choice(reason: Schema) -> Schema:
    return record(
        {
            "index": integer("", 0),
            "text": text(),
            "logprobs": nullable(reference("CompletionLogprobs")),
            "finish_reason": reason,
        }
    )


def _logprobs() -> Schema:
    return record(
        {
            "text_offset": array(integer("", 0)),
            "token_logprobs": array(number("", -9999, 0)),
            "tokens": array(text()),
            "top_logprobs": array(nullable(mapping(number("", -9999, 0)))),
        }
    )
