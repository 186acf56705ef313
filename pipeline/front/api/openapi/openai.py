"""OpenAI's API with vLLM's additions: parameters and answers that completions and chat have in common."""

from __future__ import annotations

from pipeline.front.api.openai.fields import LABELS, MAX_CHOICES, ONLY_DEFAULTS
from pipeline.front.api.openapi.sampling import biased_tokens, sampling_parameters
from pipeline.front.api.openapi.schema import (
    Schema,
    any_of,
    array,
    body,
    boolean,
    integer,
    mapping,
    number,
    one_value,
    only,
    record,
    text,
)
from pipeline.front.settings import FrontSettings


def common_parameters(settings: FrontSettings) -> dict[str, Schema]:
    return {
        **sampling_parameters(settings),
        "model": model_name(settings),
        "n": integer("Choices per prompt. With a seed, choice i uses seed + i.", 1, MAX_CHOICES, default=1),
        "top_k": integer("Sample from this many most probable tokens; -1, 0 or vocabulary size: off.", -1, default=0),
        "min_tokens": integer(
            "Fewest tokens to generate before the answer may end; at most max_tokens.",
            0,
            settings.max_length,
            default=0,
        ),
        "logit_bias": mapping(
            number("", -100, 100),
            f"Added to logits, by token id in decimal; ids up to {settings.vocab_size - 1}.",
            propertyNames={"pattern": "^[0-9]{1,9}$"},
            maxProperties=biased_tokens(settings),
            default={},
        ),
        "include_stop_str_in_output": boolean("Keep the stop string at the end of the text.", default=False),
        "skip_special_tokens": boolean("Leave special tokens out of the text.", default=True),
        "ignore_eos": boolean("Do not stop at the model's end tokens.", default=False),
        "stream": boolean("Stream the answer as server-sent events.", default=False),
        "stream_options": _stream_options(),
        "response_format": any_of(body({}, []), record({"type": only("text")}), meaning="Only text is supported."),
        "metadata": mapping(True, "Accepted without effect."),
        **{name: text("Identifies the user; accepted without effect.") for name in LABELS},
        **{name: one_value(values) for name, values in ONLY_DEFAULTS.items()},
    }


def model_name(settings: FrontSettings) -> Schema:
    names = dict.fromkeys((settings.model_name, settings.model_route))
    return only(*names, meaning="The model; any other name gives 404.", default=settings.model_name)


def _stream_options() -> Schema:
    options = {
        "include_usage": boolean("Send one more event at the end, with usage and without choices.", default=False),
        "continuous_usage_stats": boolean("Send usage in every event.", default=False),
        "include_obfuscation": only(False),
    }
    return body(options, [], "Only with stream: true.")


def usage() -> Schema:
    counts = {name: integer("", 0) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    cached = record({"cached_tokens": integer("Prompt tokens found in the prefix cache.", 0)})
    return record({**counts, "prompt_tokens_details": cached})


def heading(kind: str, prefix: str, choice: Schema, **more: Schema) -> dict[str, Schema]:
    return {
        "id": text(pattern=f"^{prefix}-[0-9a-f]{{32}}$"),
        "object": only(kind),
        "created": integer("Unix time in seconds.", 0),
        "model": text(),
        "choices": array(choice),
        **more,
    }


def finish_reason() -> Schema:
    return only("stop", "length")


def models() -> dict[str, Schema]:
    model = record(
        {
            "id": text(),
            "object": only("model"),
            "created": integer("", 0),
            "owned_by": only("ringserve"),
            "root": text(),
            "parent": only(None),
            "max_model_len": integer("Tokens of prompt and answer together.", 1),
            "permission": array({}, maxItems=0),
        }
    )
    return {"Model": model, "Models": record({"object": only("list"), "data": array(model)})}
