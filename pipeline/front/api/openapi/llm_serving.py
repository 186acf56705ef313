"""llm-serving's API."""

from __future__ import annotations

from pipeline.front.api.llm_serving.request import DEFAULT_NEW_TOKENS, UNSUPPORTED
from pipeline.front.api.openapi.sampling import sampling_parameters
from pipeline.front.api.openapi.schema import (
    Schema,
    any_of,
    array,
    body,
    boolean,
    integer,
    nullable,
    number,
    one_value,
    only,
    record,
    reference,
    text,
)
from pipeline.front.settings import FrontSettings

_SPELLED = r"^\s*([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])\s*$"


def llm_serving_schemas(settings: FrontSettings) -> dict[str, Schema]:
    return {
        "GenerateRequest": body(
            {
                "inputs": text("The prompt."),
                "parameters": body(_parameters(settings), []),
                "stream": _switch("Stream the answer; only for /models/{model}, the other paths ignore it.", False),
            },
            ["inputs"],
        ),
        "GeneratedToken": _token(settings),
        "GenerateAnswer": record(_everything()),
        "GenerateEvent": record(
            {
                "event": only("message"),
                "retry": only(30000),
                "data": any_of(*map(reference, ("GenerateStep", "GenerateEnd", "GenerateFailure"))),
            },
            meaning='A line of a stream; with return_protocol "raw" it is `data:` and the value of `data` alone.',
        ),
        "GenerateStep": record(
            {
                "details": only(None),
                "generated_text": text(),
                "tokens": reference("GeneratedToken"),
                "top_tokens": array(reference("GeneratedToken")),
            },
            meaning="One token.",
        ),
        "GenerateEnd": {**record(_everything()), "description": "The last line, with return_full_text."},
        "GenerateFailure": record(
            {
                "details": only(None),
                "generated_text": only(""),
                "finish_reason": only("predict_failed"),
                "error": reference("ErrorDetail"),
            },
            meaning="The last line of a stream that failed.",
        ),
        "Number": record({"event": only("message"), "retry": only(30000), "data": integer("", 0)}),
        "ModelInfo": _model_info(),
    }


def _parameters(settings: FrontSettings) -> dict[str, Schema]:
    longest = settings.max_length
    return {
        **sampling_parameters(settings),
        "do_sample": _switch("Sample; false: greedy, always the most probable token.", False),
        "max_new_tokens": integer(
            "Most tokens to generate. The default is reduced to what fits.",
            1,
            longest,
            default=min(DEFAULT_NEW_TOKENS, longest),
        ),
        "top_k": integer("Sample from this many most probable tokens; -1, 0 or vocabulary size: off.", -1, default=3),
        "topk_k": integer("Alias of top_k that some clients send. If both are given, they must be equal.", -1),
        "min_new_tokens": integer(
            "Fewest tokens to generate before the answer may end; at most max_new_tokens.", 0, longest, default=0
        ),
        "ignore_eos": _switch("Do not stop at the model's end tokens.", False),
        "return_full_text": _switch("End a stream with a line that holds the whole answer.", False),
        "return_protocol": only("sse", "raw", meaning="Format of a stream's lines.", default="sse"),
        **{name: one_value(values) for name, values in UNSUPPORTED.items()},
    }


def _switch(meaning: str, default: bool) -> Schema:
    return any_of(boolean(), text(pattern=_SPELLED), meaning=meaning, default=default)


def _token(settings: FrontSettings) -> Schema:
    raw = settings.llm_serving_raw_logit
    return record(
        {
            "id": integer("", 0, settings.vocab_size - 1),
            "logprob": nullable(number("The raw logit." if raw else "The log-probability.")),
            "special": boolean("The token has no text of its own, or only a part of a character."),
            "text": text(),
        }
    )


def _everything() -> dict[str, Schema]:
    tokens = array(reference("GeneratedToken"), minItems=1)
    return {
        "generated_text": text(),
        "finish_reason": only("length", "eos", "stop"),
        "generated_tokens": integer("", 1),
        "prefill": {**tokens, "maxItems": 1},
        "seed": integer("The request's seed; 0 if it had none."),
        "tokens": tokens,
        "top_tokens": array({**tokens, "maxItems": 1}, minItems=1, maxItems=1),
        "details": only(None),
    }


def _model_info() -> Schema:
    texts = ("docker_label", "model_device_type", "model_dtype", "model_id", "version")
    numbers = ("max_batch_total_tokens", "max_concurrent_requests", "max_input_length", "max_total_tokens")
    fields = {name: text() for name in texts} | {name: integer("", 0) for name in numbers}
    return record(fields | {"model_pipeline_tag": only("text-generation")})
