"""Parameters that OpenAI's APIs have in common, with those that vLLM adds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Final, TypeVar

from pydantic import Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from model.sampling import SamplingLimits
from model.tokenizer import Vocabulary
from pipeline.front.api.body import Body, Problem, Reading, cut, read, shown
from pipeline.front.api.fields import Kind, given, integer, max_biased, only, wrong
from pipeline.front.api.openai.answer import StreamOptions
from pipeline.front.api.sampling import DEFAULTED, FewestTokens, SamplingBody, TopK, left_out, limit, open_ended
from pipeline.front.api.schema import MADE, WORDS, Schema
from pipeline.front.api.structured import StructuredBody
from pipeline.front.delivery.deadline import MOST_MS
from pipeline.front.http.errors import NOT_FOUND, ApiError
from pipeline.front.settings import FrontSettings
from pipeline.wire.request import Request

INVALID_STATUS = 400
MAX_PRIORITY = 1000
MAX_CHOICES = 128  # of one prompt, as at OpenAI
ONLY_DEFAULTS: Mapping[str, tuple[Any, ...]] = {
    # vLLM's
    "use_beam_search return_token_ids return_tokens_as_token_ids return_token_offsets watermarking "
    "return_weight_versions return_prompt_text": (False,),
    "spaces_between_special_tokens detokenize": (True,),
    "truncate_prompt_tokens prompt_embeds guided_whitespace_pattern cache_salt repetition_detection": (),
    "allowed_token_ids bad_words logprob_token_ids": ([],),
    "kv_transfer_params ec_transfer_params vllm_xargs": ({},),
    "length_penalty": (1,),
    "routed_experts_prompt_start": (0,),
    "thinking_token_budget": (-1,),
    "moderation": (),
    # llama.cpp's; what one of these needs besides is a label
    "dynatemp_range xtc_probability dry_multiplier mirostat n_probs n_indent": (0,),
    "top_n_sigma reasoning_budget": (-1,),
    "adaptive_target": (-1,),
    "typical_p": (1,),
    "samplers t_max_predict_ms": (),
    "lora image_data response_fields": ([],),
    "return_tokens post_sampling_probs": (False,),
}
"""Known to change the answer, and supported at these values only."""

LABELS: Final = (
    "store metadata user session_id safety_identifier prompt_cache_key prompt_cache_options prompt_cache_retention "
    "service_tier prediction request_id stream_interval truncation_side guided_decoding_backend mm_payload "
    "return_mm_kwargs "
    "cache_prompt id_slot n_keep min_keep timings_per_token return_progress dynatemp_exponent xtc_threshold dry_base "
    "dry_allowed_length dry_penalty_last_n dry_sequence_breakers mirostat_tau mirostat_eta adaptive_decay "
    "repeat_last_n"
)
"""Known to change no text, or only together with another that is not supported; accepted without effect."""

INSTEAD: Final = {
    "n_predict": "max_tokens",
    "repeat_penalty": "repetition_penalty",
    "n_cmpl": "n",
}
"""llama.cpp's names."""

B = TypeVar("B", bound=Body)


def check_model(name: str, settings: FrontSettings) -> None:
    """Raises ApiError 404 for a model that is not served."""
    if name not in settings.model_names:
        served = ", ".join((settings.model_name, *settings.adapters))
        message = f"the model {shown(name)} does not exist here; this server has {cut(served)}"
        raise ApiError(404, message, kind=NOT_FOUND, parameter="model", code="model_not_found")


def read_openai(kind: type[B], values: dict[str, Any], reading: Reading) -> B:
    """Raises ApiError 400; 404 for another model, whatever else is wrong."""
    name = values.get("model")
    if isinstance(name, str):
        check_model(name, reading.settings)
    return read(kind, values, reading, status=INVALID_STATUS)


def needed_tokenizer(tokenizer: Vocabulary | None, parameter: str) -> Vocabulary:
    """Raises ApiError 400 for a parameter that needs one where there is none."""
    if tokenizer is None:
        message = f"{parameter} is not supported here: the front has no tokenizer, which it needs"
        raise ApiError(INVALID_STATUS, message, parameter=parameter)
    return tokenizer


def model_name(names: Callable[[FrontSettings], Iterable[str]], usual: Callable[[FrontSettings], str]) -> Kind:
    """Any string: that it is one of the names is not looked at here, since another gives 404."""

    def read(value: Any, settings: FrontSettings) -> str:
        if type(value) is not str:
            raise ValueError
        return value

    return Kind(read, lambda settings: {"enum": list(names(settings)), "default": usual(settings), WORDS: "a string"})


_NAME = model_name(lambda settings: settings.model_names, lambda settings: settings.model_name)
ModelName = Annotated[str | None, _NAME, Field(description="The model; any other name gives 404.")]


def _biases(value: Any, settings: FrontSettings) -> dict[int, float]:
    """JSON's keys are strings: token ids in decimal."""
    if not isinstance(value, dict) or not all(key.isascii() and key.isdigit() and len(key) < 10 for key in value):
        raise ValueError
    if len(value) > max_biased(settings):
        wrong(f"has {len(value)} tokens; at most {max_biased(settings)} are allowed")
    for key, bias in value.items():
        if int(key) >= settings.vocab_size:
            raise ValueError
        if type(bias) not in (int, float) or abs(bias) > 100:
            wrong(f"is {shown(bias)}, expected a number in [-100, 100]", f"[{int(key)}]")
    return {int(key): bias for key, bias in value.items()}


def _biases_schema(settings: FrontSettings) -> Schema:
    words = f"an object of token ids, up to {settings.vocab_size - 1}, and biases"
    return {
        "type": "object",
        "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
        "propertyNames": {"pattern": "^[0-9]{1,9}$"},
        "maxProperties": max_biased(settings),
        "description": f"Added to logits: {words}.",
        WORDS: words,
    }


def most_logprobs(settings: FrontSettings) -> int:
    return min(SamplingLimits(settings.vocab_size, settings.max_length).max_top_logprobs, settings.vocab_size)


def most_choices(settings: FrontSettings) -> int:
    """All choices of a request are queued together."""
    return min(MAX_CHOICES, settings.max_queue)


class StreamSettings(Body):
    """Only with stream: true."""

    include_usage: bool = given(False, "Send one more event at the end, with usage and without choices.")
    continuous_usage_stats: bool = given(False, "Send usage in every event.")
    include_obfuscation: Annotated[Any, only(False)] = None

    def options(self) -> StreamOptions:
        return StreamOptions(self.include_usage, self.continuous_usage_stats)


_USUAL: Final = StreamOptions()


def _with_default(name: str, schema: Schema) -> Schema:
    usual, known = schema["default"], {key: one for key, one in schema.items() if key != "default"}
    return {**known, MADE: lambda settings: {"default": settings.sampling_defaults.get(name, usual)}}


class OpenAIBody(StructuredBody, SamplingBody):
    model: ModelName = None
    stream: bool = given(False, "Stream the answer as server-sent events.")
    stream_options: StreamSettings | None = None
    n: Annotated[int, integer(1, most_choices)] = given(1, "Choices per prompt. With a seed, choice i uses seed + i.")
    top_k: TopK = 0
    min_tokens: FewestTokens = given(0, "Fewest tokens before the answer may end; at most max_tokens.")
    logit_bias: Annotated[dict[int, float], Kind(_biases, _biases_schema)] = Field(default_factory=dict)
    include_stop_str_in_output: bool = given(False, "Keep the stop string at the end of the text.")
    skip_special_tokens: bool = given(True, "Leave special tokens out of the text.")
    ignore_eos: bool = given(False, "Do not stop at the model's end tokens.")
    timeout_ms: Annotated[int | None, integer(1, MOST_MS)] = given(
        None, "Milliseconds in which the answer must be complete; it is refused or broken off otherwise."
    )
    priority: Annotated[int, integer(-MAX_PRIORITY, MAX_PRIORITY)] = given(
        0,
        "Requests with a lower number come first. Where keys are needed, it is added to the key's, and at least 0.",
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        """Some defaults are the model's own."""
        reference = super().__get_pydantic_json_schema__(core, handler)
        properties = handler.resolve_ref_schema(reference)["properties"]
        for name in properties.keys() & DEFAULTED:
            properties[name] = _with_default(name, properties[name])
        return reference

    def conflicts(self, settings: FrontSettings) -> Iterator[Problem]:
        yield from super().conflicts(settings)
        if "stream_options" in self.model_fields_set and not self.stream:
            yield "stream_options", "stream_options is only allowed with stream: true"
        biased = len(self.stop_token_ids) + len(self.logit_bias)
        if biased > max_biased(settings):
            told = f"logit_bias and stop_token_ids together have {biased} tokens"
            yield "logit_bias", f"{told}; at most {max_biased(settings)} are allowed"

    @property
    def options(self) -> StreamOptions:
        return _USUAL if self.stream_options is None else self.stream_options.options()

    def request(
        self,
        settings: FrontSettings,
        wanted: int | None,
        default: int,
        logprobs: int | None,
        prompt_logprobs: int | None = None,
    ) -> Request:
        """`wanted`: the most tokens; without it the default, or as many as fit. For none, one is computed."""
        bias, least = self.logit_bias, self.min_tokens
        return Request(
            self.sampling(
                settings,
                defaults=left_out(self, settings),
                top_k=self.top_k,
                min_tokens=least,
                logprobs=logprobs,
                logit_bias=bias,
            ),
            max_tokens=max(1, limit(wanted, default, settings)),
            open_ended=open_ended(wanted),
            stop=self.stop,
            include_stop=self.include_stop_str_in_output,
            skip_special=self.skip_special_tokens,
            ignore_eos=self.ignore_eos,
            adapter=settings.adapter(self.model),
            prompt_logprobs=prompt_logprobs,
            most_drafts=self.most_drafts,
            deterministic=self.is_deterministic(settings),
            priority=self.priority,
            timeout_ms=self.timeout_ms,
        )
