"""Parameters that all APIs have in common: how tokens are chosen, and what ends the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import msgspec
from pydantic import Field

from model.sampling import RANGES, SamplingParams
from pipeline.front.api.body import Body, Problem
from pipeline.front.api.fields import Kind, StopStrings, given, integer, max_biased, token_ids
from pipeline.front.api.schema import LARGEST
from pipeline.front.settings import FrontSettings

_DEFAULTS = {field.name: field.default for field in msgspec.structs.fields(SamplingParams)}


def sampled(name: str, meaning: str, default: float | None = None) -> Any:
    """A parameter with the range that it has for the sampler, and its default unless the API has another."""
    span = RANGES[name]
    least, above = (None, span.low) if span.above else (span.low, None)
    high = LARGEST if span.high is None else span.high
    usual = _DEFAULTS[name] if default is None else default
    return Field(usual, description=meaning, ge=least, gt=above, le=high)


def longest(settings: FrontSettings) -> int:
    return settings.max_length


def most_tokens(default: int) -> Kind:
    """How many tokens are generated at most; by default so many, or as many as fit."""
    kind = integer(1, longest)
    return Kind(kind.read, lambda settings: {**kind.schema(settings), "default": limit(None, default, settings)})


def limit(wanted: int | None, default: int, settings: FrontSettings) -> int:
    """The most tokens to generate: the default, which may be reduced to what fits, if the client names none."""
    return wanted or min(default, settings.max_length)


FewestTokens = Annotated[int, integer(0, longest)]
TopK = Annotated[int, integer(-1), Field(description="Choose from so many most probable tokens; -1, 0: off.")]


class SamplingBody(Body):
    temperature: float = sampled("temperature", "Randomness of sampling; 0: greedy.")
    top_p: float = sampled("top_p", "Choose from the most probable tokens of this probability together; 1: off.")
    min_p: float = sampled("min_p", "Least probability, relative to the most probable token's; 0: off.")
    repetition_penalty: float = sampled("repetition_penalty", "For tokens of prompt and answer; 1: off.")
    presence_penalty: float = sampled("presence_penalty", "For tokens that are in the answer already; 0: off.")
    frequency_penalty: float = sampled("frequency_penalty", "For tokens of the answer, per occurrence; 0: off.")
    seed: Annotated[int, integer()] | None = given(None, "The same seed gives the same text. Left out or -1: random.")
    stop: StopStrings = given((), "Stop strings, which end the answer.")
    stop_token_ids: Annotated[Sequence[int], token_ids(max_biased)] = given((), "Token ids that end the answer.")

    def sampling(
        self, settings: FrontSettings, *, top_k: int, min_tokens: int, logprobs: int | None, **more: Any
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
            min_tokens=min_tokens,
            stop_token_ids=tuple(self.stop_token_ids),
            **more,
        )


def least_above_most(names: tuple[str, str], least: int, most: int) -> Iterator[Problem]:
    """`names` of the two in the client's API."""
    if least > most:
        yield names[0], f"{names[0]} is {least}, expected an integer in [0, {most}], at most {names[1]}"
