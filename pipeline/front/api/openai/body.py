"""Parameters that OpenAI's APIs have in common, with those that vLLM adds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

from pydantic import Field

from model.sampling import SamplingLimits
from model.tokenizer import Tokenizer
from pipeline.front.api.body import Body, Problem, read, shown
from pipeline.front.api.fields import (
    EmptyList,
    EmptyObject,
    Kind,
    Off,
    On,
    Unsupported,
    integer,
    max_biased,
    only,
    refuse,
)
from pipeline.front.api.openai.answer import StreamOptions
from pipeline.front.api.sampling import MIN_TOKENS, TOP_K, FewestTokens, SamplingBody, limit
from pipeline.front.api.schema import WORDS, Schema
from pipeline.front.http.errors import NOT_FOUND, ApiError
from pipeline.front.settings import FrontSettings
from pipeline.wire.request import Request

INVALID_STATUS = 400
MAX_CHOICES = 128  # of one prompt, as at OpenAI

B = TypeVar("B", bound=Body)


def check_model(name: str, settings: FrontSettings) -> None:
    """Raises ApiError 404 for a model that is not served."""
    if name not in (settings.model_name, settings.model_route):
        message = f"the model {shown(name)} does not exist here; this server has {settings.model_name}"
        raise ApiError(404, message, kind=NOT_FOUND, parameter="model", code="model_not_found")


def read_openai(kind: type[B], values: dict[str, Any], settings: FrontSettings) -> B:
    """Raises ApiError 400; 404 for another model, whatever else is wrong."""
    name = values.get("model")
    if isinstance(name, str):
        check_model(name, settings)
    return read(kind, values, settings, status=INVALID_STATUS)


def _model_schema(settings: FrontSettings) -> Schema:
    names = list(dict.fromkeys((settings.model_name, settings.model_route)))
    meaning = "The model; any other name gives 404."
    return {"enum": names, "description": meaning, "default": settings.model_name, WORDS: "a string"}


def _model(value: Any, settings: FrontSettings) -> str:
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004 - pydantic knows no TypeError
    return value  # its name was checked


ModelName = Annotated[str, Kind(_model, _model_schema)]


def _biases(value: Any, settings: FrontSettings) -> dict[int, float]:
    """JSON's keys are strings: token ids in decimal."""
    if not isinstance(value, dict) or not all(key.isascii() and key.isdigit() and len(key) < 10 for key in value):
        raise ValueError
    if len(value) > max_biased(settings):
        refuse(f"logit_bias has {len(value)} tokens; at most {max_biased(settings)} are allowed")
    biases = {int(key): bias for key, bias in value.items()}
    for token, bias in biases.items():
        if token >= settings.vocab_size:
            refuse(f"logit_bias has token {token}, expected token ids in [0, {settings.vocab_size - 1}]")
        if not isinstance(bias, int | float) or isinstance(bias, bool) or abs(bias) > 100:
            place = f"logit_bias[{token}]"
            refuse(f"{place} is {shown(bias)}, expected a number in [-100, 100]", parameter=place)
    return biases


def _biases_schema(settings: FrontSettings) -> Schema:
    return {
        "type": "object",
        "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
        "propertyNames": {"pattern": "^[0-9]{1,9}$"},
        "maxProperties": max_biased(settings),
        "description": f"Added to logits, by token id in decimal; ids up to {settings.vocab_size - 1}.",
        WORDS: "an object of token ids and biases",
    }


def most_logprobs(settings: FrontSettings) -> int:
    limits = SamplingLimits(settings.vocab_size, settings.max_length)
    return min(limits.max_top_logprobs, limits.vocab_size)


def most_choices(settings: FrontSettings) -> int:
    """All choices of a request are queued together."""
    return min(MAX_CHOICES, settings.max_queue)


class StreamSettings(Body):
    """Only with stream: true."""

    include_usage: bool = Field(False, description="Send one more event at the end, with usage and without choices.")
    continuous_usage_stats: bool = Field(False, description="Send usage in every event.")
    include_obfuscation: Off = False

    def options(self) -> StreamOptions:
        return StreamOptions(self.include_usage, self.continuous_usage_stats)


def _text_only(value: Any, settings: FrontSettings) -> None:
    if not isinstance(value, dict) or any(one is not None for name, one in value.items() if name != "type"):
        raise ValueError
    if value.get("type") not in (None, "text"):
        raise ValueError


_TEXT_ONLY: Schema = {
    "type": "object",
    "properties": {"type": {"enum": ["text", None]}},
    "additionalProperties": {"type": "null"},
    "description": "Only text is supported.",
    WORDS: '{"type": "text"}: structured output is not supported',
}

Label = Annotated[str | None, Field(description="Identifies the user; accepted without effect.")]


class OpenAIBody(SamplingBody):
    model: ModelName | None = None
    stream: bool = Field(False, description="Stream the answer as server-sent events.")
    stream_options: StreamSettings = StreamSettings.model_validate({})
    n: Annotated[int, integer(1, most_choices)] = Field(
        1, description="Choices per prompt. With a seed, choice i uses seed + i."
    )
    top_k: Annotated[int, integer(-1)] = Field(0, description=TOP_K)
    min_tokens: FewestTokens = Field(0, description=MIN_TOKENS + "max_tokens.")
    logit_bias: Annotated[dict[int, float], Kind(_biases, _biases_schema)] = Field({})
    include_stop_str_in_output: bool = Field(False, description="Keep the stop string at the end of the text.")
    skip_special_tokens: bool = Field(True, description="Leave special tokens out of the text.")
    ignore_eos: bool = Field(False, description="Do not stop at the model's end tokens.")
    response_format: Annotated[None, Kind(_text_only, lambda _: _TEXT_ONLY)] = None
    metadata: dict[str, Any] = Field({}, description="Accepted without effect.")

    user: Label = None
    session_id: Label = None
    safety_identifier: Label = None
    prompt_cache_key: Label = None

    # Known, and supported at these values only.
    store: Off = None
    service_tier: Annotated[Any, only("auto", "default")] = None
    use_beam_search: Off = None
    length_penalty: Annotated[Any, only(1)] = None
    spaces_between_special_tokens: On = None
    detokenize: On = None
    truncate_prompt_tokens: Unsupported = None
    truncation_side: Unsupported = None
    allowed_token_ids: EmptyList = None
    bad_words: EmptyList = None
    prompt_logprobs: Unsupported = None
    logprob_token_ids: EmptyList = None
    prompt_embeds: Unsupported = None
    structured_outputs: Unsupported = None
    guided_json: Unsupported = None
    guided_regex: Unsupported = None
    guided_choice: Unsupported = None
    guided_grammar: Unsupported = None
    guided_decoding_backend: Unsupported = None
    guided_whitespace_pattern: Unsupported = None
    priority: Annotated[Any, only(0)] = None
    request_id: Unsupported = None
    return_token_ids: Off = None
    return_tokens_as_token_ids: Off = None
    return_token_offsets: Off = None
    return_weight_versions: Off = None
    return_mm_kwargs: Unsupported = None
    mm_payload: Annotated[Any, only("tensors")] = None
    routed_experts_prompt_start: Annotated[Any, only(0)] = None
    cache_salt: Unsupported = None
    kv_transfer_params: EmptyObject = None
    ec_transfer_params: EmptyObject = None
    vllm_xargs: EmptyObject = None
    repetition_detection: Unsupported = None
    thinking_token_budget: Annotated[Any, only(-1)] = None
    stream_interval: Annotated[Any, only(1)] = None
    watermarking: Off = None

    def conflicts(self, settings: FrontSettings) -> Iterator[Problem]:
        if self.stream_options.model_fields_set and not self.stream:
            yield "stream_options", "stream_options is only allowed with stream: true"
        if len(self.stop_token_ids) + len(self.logit_bias) > max_biased(settings):
            names = "logit_bias and stop_token_ids together"
            yield "logit_bias", f"{names} have more than {max_biased(settings)} tokens, which is the most allowed"

    def request(self, settings: FrontSettings, wanted: int | None, default: int, logprobs: int | None) -> Request:
        """`wanted`: the most tokens; without it the default, or as many as fit."""
        sampling = self.sampling(
            settings, top_k=self.top_k, min_tokens=self.min_tokens, logprobs=logprobs, logit_bias=self.logit_bias
        )
        return Request(
            sampling,
            max_tokens=limit(wanted, default, settings),
            open_ended=wanted is None,
            stop=self.stop,
            include_stop=self.include_stop_str_in_output,
            skip_special=self.skip_special_tokens,
            ignore_eos=self.ignore_eos,
        )


def needed_tokenizer(tokenizer: Tokenizer | None, parameter: str) -> Tokenizer:
    """Raises ApiError 400 for a parameter that needs one where there is none."""
    if tokenizer is None:
        message = f"{parameter} is not supported here: the front has no tokenizer, which it needs"
        raise ApiError(INVALID_STATUS, message, parameter=parameter)
    return tokenizer
