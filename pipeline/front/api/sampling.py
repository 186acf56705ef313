"""Parameters that all APIs have in common: how tokens are chosen, and what ends the answer."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from pydantic import Field

from model.sampling import RANGES, SamplingParams
from pipeline.front.api.body import Body, Problem
from pipeline.front.api.fields import Kind, StopStrings, integer, max_biased, read_token_ids, token_ids_schema
from pipeline.front.api.schema import LARGEST
from pipeline.front.settings import FrontSettings

_DEFAULTS = {field.name: field.default for field in msgspec.structs.fields(SamplingParams)}
TOP_K = "Sample from this many most probable tokens; -1, 0 or vocabulary size: off."
MIN_TOKENS = "Fewest tokens to generate before the answer may end; at most "


def _sampled(name: str, meaning: str) -> Any:
    """A parameter with the range and the default that it has for the sampler."""
    span = RANGES[name]
    least, above = (None, span.low) if span.above else (span.low, None)
    high = LARGEST if span.high is None else span.high
    return Field(_DEFAULTS[name], description=meaning, ge=least, gt=above, le=high)


def longest(settings: FrontSettings) -> int:
    return settings.max_length


def most_tokens(default: int | None = None) -> Kind:
    """How many tokens are generated at most; by default so many, or as many as fit."""
    kind = integer(1, longest)
    if default is None:
        return kind
    return Kind(kind.read, lambda settings: {**kind.schema(settings), "default": min(default, settings.max_length)})


EndIds = Annotated[
    tuple[int, ...],
    Kind(
        lambda value, settings: tuple(read_token_ids(value, settings, max_biased(settings))),
        lambda settings: token_ids_schema(settings, maxItems=max_biased(settings)),
    ),
]
Seed = Annotated[int, integer()]
FewestTokens = Annotated[int, integer(0, longest)]


class SamplingBody(Body):
    temperature: float = _sampled("temperature", "Randomness of sampling; 0: greedy.")
    top_p: float = _sampled(
        "top_p", "Sample from the most probable tokens that together have this probability; 1: off."
    )
    min_p: float = _sampled("min_p", "Least probability, relative to the most probable token's; 0: off.")
    repetition_penalty: float = _sampled(
        "repetition_penalty", "For tokens of prompt and answer, above 1 against repetition; 1: off."
    )
    presence_penalty: float = _sampled("presence_penalty", "For tokens that are in the answer already; 0: off.")
    frequency_penalty: float = _sampled("frequency_penalty", "For tokens of the answer, per occurrence; 0: off.")
    seed: Seed | None = Field(None, description="The same seed gives the same text. Left out or -1: random.")
    stop: StopStrings = Field((), description="Stop strings, which end the answer.")
    stop_token_ids: EndIds = Field((), description="Token ids that end the answer.")

    def sampling(
        self,
        settings: FrontSettings,
        *,
        top_k: int,
        min_tokens: int,
        logprobs: int | None,
        logit_bias: dict[int, float] | None = None,
    ) -> SamplingParams:
        return SamplingParams(
            temperature=self.temperature,
            top_k=0 if top_k >= settings.vocab_size else top_k,  # the same as none, and may be too large for 32 bits
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            seed=self.seed,
            logprobs=logprobs,
            logit_bias=logit_bias or {},
            min_tokens=min_tokens,
            stop_token_ids=self.stop_token_ids,
        )


def limit(wanted: int | None, default: int, settings: FrontSettings) -> int:
    """The most tokens to generate: the default, which may be reduced to what fits, if the client names none."""
    return wanted or min(default, settings.max_length)


def least_above_most(names: tuple[str, str], least: int, most: int) -> list[Problem]:
    """`names` of the two in the client's API."""
    if least <= most:
        return []
    return [(names[0], f"{names[0]} is {least}, expected an integer in [0, {most}], at most {names[1]}")]
