"""Parameters that all APIs have in common: how tokens are chosen, and how many."""

from __future__ import annotations

from model.sampling import ParameterError, SamplingLimits, SamplingParams
from pipeline.front.api.fields import Fields, shown
from pipeline.front.http.errors import ApiError
from pipeline.front.settings import FrontSettings


def read_sampling(
    fields: Fields,
    settings: FrontSettings,
    *,
    top_k: int,
    logprobs: int | None,
    min_tokens: str = "min_tokens",
    logit_bias: dict[int, float] | None = None,
) -> SamplingParams:
    """`min_tokens` is that parameter's name in the client's API. Raises ApiError for a value out of range."""
    sampling = SamplingParams(
        temperature=fields.number("temperature", 1.0),
        top_k=0 if top_k >= settings.vocab_size else top_k,  # the same as none, and may be too large for 32 bits
        top_p=fields.number("top_p", 1.0),
        min_p=fields.number("min_p", 0.0),
        repetition_penalty=fields.number("repetition_penalty", 1.0),
        presence_penalty=fields.number("presence_penalty", 0.0),
        frequency_penalty=fields.number("frequency_penalty", 0.0),
        seed=fields.integer("seed", None),
        logprobs=logprobs,
        logit_bias=logit_bias or {},
        min_tokens=fields.integer(min_tokens, 0),
        stop_token_ids=tuple(fields.token_ids("stop_token_ids", settings.vocab_size)),
    )
    try:
        sampling.validate(SamplingLimits(settings.vocab_size, settings.max_length))
    except ParameterError as error:
        name = min_tokens if error.parameter == "min_tokens" else error.parameter
        message = f"{name} is {shown(error.value)}, expected {error.allowed}"
        raise ApiError(fields.status, message, parameter=name) from None
    return sampling


def read_max_tokens(fields: Fields, settings: FrontSettings, name: str, *, default: int) -> tuple[int, bool]:
    """The most tokens to generate, and whether that may be reduced to what fits, because it is the default."""
    wanted: int | None = fields.integer(name, None, 1, settings.max_length)
    return wanted or min(default, settings.max_length), wanted is None


def check_min_tokens(fields: Fields, sampling: SamplingParams, max_tokens: int, names: tuple[str, str]) -> None:
    """`names` of the two in the client's API."""
    if sampling.min_tokens > max_tokens:
        least, most = names
        message = f"{least} is {sampling.min_tokens}, expected an integer in [0, {max_tokens}], at most {most}"
        raise fields.invalid(least, message)
