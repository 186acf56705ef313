"""Requests in the form of OpenAI's /v1/completions, with the parameters that vLLM adds."""

from __future__ import annotations

from typing import Any

from model.sampling import SamplingLimits, SamplingParams
from pipeline.front.completions_answer import CompletionsAnswer, Logprobs, TokenText
from pipeline.front.errors import NOT_FOUND, ApiError
from pipeline.front.fields import Fields, is_token_list
from pipeline.front.job import Job, check_sampling
from pipeline.front.settings import FrontSettings
from pipeline.messages import GenerationParams

_INVALID = 400


def parse_completion(
    body: dict[str, Any], request: int, token_text: TokenText | None, settings: FrontSettings
) -> Job:
    """`token_text` gives the text of a token id; None where no request may ask for log-probabilities.

    Raises ApiError 400, or 404 for a model that is not served.
    """
    fields = Fields(body, status=_INVALID)
    check_model(fields, settings)
    streamed = fields.boolean("stream", False)
    prompt, params = _prompt(fields, settings.vocab_size), completion_params(fields, settings, default_tokens=16)
    logprobs, echo = params.sampling.logprobs, _echo(fields, prompt)
    if logprobs is not None and token_text is None:
        fields.refuse("logprobs", "it left out: this server has no tokenizer at hand to name tokens")
    answer = CompletionsAnswer(
        request,
        settings.model_name,
        include_usage=_include_usage(fields, streamed=streamed),
        logprobs=None if logprobs is None or token_text is None else Logprobs(token_text, logprobs, len(echo)),
        echo=echo,
    )
    _refuse_the_rest(fields)
    return Job(request, prompt, params, streamed, answer)


def check_model(fields: Fields, settings: FrontSettings) -> None:
    served = (settings.model_name, settings.model_route)
    name = fields.text("model", served[0])
    if name not in served:
        message = f"the model {name[:80]!r} is not served here; served: {served[0]}"
        raise ApiError(404, message, kind=NOT_FOUND, parameter="model")


def completion_params(fields: Fields, settings: FrontSettings, *, default_tokens: int) -> GenerationParams:
    """What completions and chat have in common."""
    sampling = _sampling(fields, settings)
    check_sampling(sampling, SamplingLimits(settings.vocab_size, settings.max_length), _INVALID, {})
    wanted = fields.integer("max_tokens", None, 1, settings.max_length)
    return GenerationParams(
        sampling,
        max_tokens=wanted or min(default_tokens, settings.max_length),
        open_ended=wanted is None,
        stop=fields.texts("stop"),
        include_stop=fields.boolean("include_stop_str_in_output", False),
        skip_special=fields.boolean("skip_special_tokens", True),
        ignore_eos=fields.boolean("ignore_eos", False),
    )


def _sampling(fields: Fields, settings: FrontSettings) -> SamplingParams:
    return SamplingParams(
        temperature=fields.number("temperature", 1.0),
        top_k=_top_k(fields, settings.vocab_size),
        top_p=fields.number("top_p", 1.0),
        min_p=fields.number("min_p", 0.0),
        repetition_penalty=fields.number("repetition_penalty", 1.0),
        presence_penalty=fields.number("presence_penalty", 0.0),
        frequency_penalty=fields.number("frequency_penalty", 0.0),
        seed=fields.integer("seed", None),
        logprobs=fields.integer("logprobs", None),
        logit_bias=_logit_bias(fields),
        min_tokens=fields.integer("min_tokens", 0),
        stop_token_ids=fields.token_ids("stop_token_ids", settings.vocab_size),
    )


def _top_k(fields: Fields, vocab_size: int) -> int:
    """A count that takes in the whole vocabulary is the same as none, and may be too large for 32 bits."""
    top_k = fields.integer("top_k", 0)
    return 0 if top_k >= vocab_size else int(top_k)


def _logit_bias(fields: Fields) -> dict[int, float]:
    """JSON's keys are strings: token ids in decimal."""
    biases = fields.take("logit_bias", {})
    if not isinstance(biases, dict) or not all(key.isascii() and key.isdigit() and len(key) < 10 for key in biases):
        fields.refuse("logit_bias", "an object of token ids and biases")
    return {int(key): bias for key, bias in biases.items()}


def _prompt(fields: Fields, vocab_size: int) -> str | list[int]:
    """A string or token ids; a list of one prompt is that prompt."""
    prompt = fields.take("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt
    if is_token_list(prompt, vocab_size):
        return list(prompt)
    if prompt is None:
        raise fields.invalid("prompt", "prompt is missing: a string or a list of token ids")
    return fields.refuse("prompt", f"one string, or one list of token ids in [0, {vocab_size - 1}]")


def _echo(fields: Fields, prompt: str | list[int]) -> str:
    if not fields.boolean("echo", False):
        return ""
    if isinstance(prompt, list) or fields.has("logprobs"):
        raise fields.invalid("echo", "echo is supported for a prompt that is a string, and without logprobs")
    return prompt


def _include_usage(fields: Fields, *, streamed: bool) -> bool:
    options = fields.take("stream_options", {})
    if not isinstance(options, dict):
        fields.refuse("stream_options", "an object")
    if options and not streamed:
        raise fields.invalid("stream_options", "stream_options is only allowed with stream: true")
    inner = Fields(options, status=_INVALID)
    wanted = inner.boolean("include_usage", False)
    inner.only("continuous_usage_stats", False)
    inner.done()
    return wanted


def _refuse_the_rest(fields: Fields) -> None:
    fields.only("n", 1)
    fields.only("best_of", 1)
    fields.only("suffix")
    fields.text("user")  # names the client's user; nothing is done with it, nor expected
    fields.done()
