"""Parameters that OpenAI's APIs have in common, with those that vLLM adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model.sampling import SamplingParams
from pipeline.front.api.fields import Fields, shown
from pipeline.front.api.openai.answer import StreamOptions
from pipeline.front.api.sampling import check_min_tokens, read_max_tokens, read_sampling
from pipeline.front.http.errors import NOT_FOUND, ApiError
from pipeline.front.settings import FrontSettings
from pipeline.wire.request import Request

INVALID_STATUS = 400
MAX_CHOICES = 128  # of one prompt, as at OpenAI

# Known, and supported at these values only; null or left out is always right.
ONLY_DEFAULTS: Mapping[str, tuple[Any, ...]] = {
    "store": (False,),
    "service_tier": ("auto", "default"),
    "use_beam_search": (False,),
    "length_penalty": (1, 1.0),
    "spaces_between_special_tokens": (True,),
    "detokenize": (True,),
    "truncate_prompt_tokens": (),
    "truncation_side": (),
    "allowed_token_ids": ([],),
    "bad_words": ([],),
    "prompt_logprobs": (),
    "logprob_token_ids": ([],),
    "prompt_embeds": (),
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_decoding_backend": (),
    "guided_whitespace_pattern": (),
    "priority": (0,),
    "request_id": (),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "return_token_offsets": (False,),
    "return_weight_versions": (False,),
    "return_mm_kwargs": (),
    "mm_payload": ("tensors",),
    "routed_experts_prompt_start": (0,),
    "cache_salt": (),
    "kv_transfer_params": ({},),
    "ec_transfer_params": ({},),
    "vllm_xargs": ({},),
    "repetition_detection": (),
    "thinking_token_budget": (-1,),
    "stream_interval": (1,),
    "watermarking": (False,),
}
LABELS = ("user", "session_id", "safety_identifier", "prompt_cache_key")  # identify the user; without effect


def check_model(name: Any, settings: FrontSettings) -> None:
    """Raises ApiError 404 for a model that is not served."""
    if name not in (None, settings.model_name, settings.model_route):
        message = f"the model {shown(name)} does not exist here; this server has {settings.model_name}"
        raise ApiError(404, message, kind=NOT_FOUND, parameter="model", code="model_not_found")


def read_sampling_params(fields: Fields, settings: FrontSettings, logprobs: int | None) -> SamplingParams:
    top_k, bias = fields.integer("top_k", 0), _logit_bias(fields)
    return read_sampling(fields, settings, top_k=top_k, logprobs=logprobs, logit_bias=bias)


def read_generation(
    fields: Fields, settings: FrontSettings, sampling: SamplingParams, max_tokens: str, *, default: int
) -> Request:
    """`max_tokens` is the name under which the client gives the limit."""
    limit, open_ended = read_max_tokens(fields, settings, max_tokens, default=default)
    check_min_tokens(fields, sampling, limit, ("min_tokens", max_tokens))
    return Request(
        sampling,
        max_tokens=limit,
        open_ended=open_ended,
        stop=fields.texts("stop"),
        include_stop=fields.boolean("include_stop_str_in_output", False),
        skip_special=fields.boolean("skip_special_tokens", True),
        ignore_eos=fields.boolean("ignore_eos", False),
    )


def read_choices(fields: Fields, settings: FrontSettings, prompts: int = 1) -> int:
    """`n`. All choices of a request are queued together."""
    n: int = fields.integer("n", 1, 1, MAX_CHOICES)
    if n * prompts > settings.max_queue:
        message = (
            f"{prompts} prompts with n = {n} are {n * prompts} sequences; the queue has room for {settings.max_queue}"
        )
        raise fields.invalid("n" if prompts == 1 else "prompt", message)
    return n


def read_stream_options(fields: Fields, *, streamed: bool) -> StreamOptions:
    options = fields.mapping("stream_options")
    if options and not streamed:
        raise fields.invalid("stream_options", "stream_options is only allowed with stream: true")
    inner = Fields(options, status=fields.status)
    include, continuous = (inner.boolean(name, False) for name in ("include_usage", "continuous_usage_stats"))
    inner.only("include_obfuscation", False)
    inner.done()
    return StreamOptions(include, continuous)


def refuse_unsupported(fields: Fields) -> None:
    """Parameters that are known but not supported, and unknown ones."""
    fields.restrict(ONLY_DEFAULTS)
    response_format = fields.mapping("response_format")
    named = {name: value for name, value in response_format.items() if value is not None}
    if named and named != {"type": "text"}:
        fields.refuse("response_format", '{"type": "text"}: structured output is not supported')
    for name in LABELS:
        fields.text(name)
    fields.mapping("metadata")
    fields.done()


def _logit_bias(fields: Fields) -> dict[int, float]:
    """JSON's keys are strings: token ids in decimal."""
    biases = fields.mapping("logit_bias")
    if not all(key.isascii() and key.isdigit() and len(key) < 10 for key in biases):
        fields.refuse("logit_bias", "an object of token ids and biases")
    return {int(key): bias for key, bias in biases.items()}
