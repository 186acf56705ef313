"""Parameters that all APIs have in common: how tokens are chosen, and what ends the answer."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Final

import msgspec
from pydantic import Field

from model.sampling import RANGES, SamplingParams
from pipeline.front.api.body import Body, Problem, shown
from pipeline.front.api.fields import Kind, StopStrings, given, integer, max_biased, refuse, token_ids, wrong
from pipeline.front.api.schema import LARGEST, WORDS, Schema, in_words
from pipeline.front.settings import FrontSettings
from pipeline.wire.request import MANY_DRAFTS, TOO_LONG, too_long

NO_LIMIT: Final = -1
"""As a number of tokens: llama.cpp's way to ask for as many as fit."""

DEFAULTED: Final = frozenset({"temperature", "top_p", "top_k", "min_p", "repetition_penalty"})
"""Whose defaults a model may have its own of."""

_PLAIN: Final = (
    "temperature",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
)
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


def most_tokens(default: int | None = None, least: int = 1) -> Kind:
    """How many tokens are generated at most; by default so many, or as many as fit."""
    kind = integer(least, sys.maxsize)

    def read(value: Any, settings: FrontSettings) -> int:
        if type(value) is int and value == NO_LIMIT:
            return value
        wanted: int = kind.read(value, settings)
        if wanted > settings.max_length:
            told = f"you requested {wanted} tokens in the completion"
            refuse(too_long(settings.max_length, told, "completion"), TOO_LONG)
        return wanted

    def schema(settings: FrontSettings) -> Schema:
        known = {} if default is None else {"default": limit(None, default, settings)}
        span = integer(least, longest).schema(settings)
        return {"anyOf": [span, {"const": NO_LIMIT}], WORDS: f"{in_words(span)}, or -1 for no limit", **known}

    return Kind(read, schema)


def limit(wanted: int | None, default: int, settings: FrontSettings) -> int:
    """The most tokens to generate; without a number from the client, what fits is less: see `open_ended`."""
    if wanted == NO_LIMIT:
        return settings.max_length
    return min(default, settings.max_length) if wanted is None else wanted


def open_ended(wanted: int | None) -> bool:
    """The limit may be cut to what fits."""
    return wanted in (None, NO_LIMIT)


def _drafts(value: Any, settings: FrontSettings) -> int:
    """As `Request.most_drafts`."""
    if type(value) is bool:
        return MANY_DRAFTS * value
    if not isinstance(value, dict):
        raise ValueError  # noqa: TRY004 - pydantic's errors are made from these alone
    if unknown := [key for key in value if key != "max_drafts"]:
        wrong(f"has an unknown member {shown(unknown[0])}, expected max_drafts alone")
    drafts = value.get("max_drafts", MANY_DRAFTS)
    if type(drafts) is not int or not 0 <= drafts <= MANY_DRAFTS:
        wrong(f"is {shown(drafts)}, expected an integer in [0, {MANY_DRAFTS}]", ".max_drafts")
    return drafts


def _drafts_schema(settings: FrontSettings) -> Schema:
    most = {"type": "integer", "minimum": 0, "maximum": MANY_DRAFTS}
    details = {"type": "object", "properties": {"max_drafts": most}, "additionalProperties": False}
    return {
        "anyOf": [{"type": "boolean"}, details],
        "description": "Whether tokens may be guessed and verified together, or how many at a time; never more than "
        "the server does, as by default. It changes the speed alone.",
        WORDS: "true, false, or an object with max_drafts",
    }


Speculation = Annotated[int, Kind(_drafts, _drafts_schema)]
FewestTokens = Annotated[int, integer(0, longest)]
TopK = Annotated[int, integer(-1), Field(description="Choose from so many most probable tokens; -1, 0: off.")]


def top_p(default: float = 1.0) -> Any:
    meaning = "Choose from the most probable tokens of this probability together; 0: greedy; 1: off."
    return Field(default, description=meaning, ge=0, le=1)


def sampling_of(values: Mapping[str, Any], settings: FrontSettings, **more: Any) -> SamplingParams:
    """`values` by the sampler's names, as a client gives them."""
    known = dict(values)
    if known["top_k"] >= settings.vocab_size:
        known["top_k"] = 0  # the same as none, and may be too large for 32 bits
    if known["top_p"] == 0:  # nothing but the most probable token
        known |= {"temperature": 0.0, "top_p": 1.0}
    return SamplingParams(**known, **more)


def left_out(
    body: Body, settings: FrontSettings, options: Mapping[str, str] = MappingProxyType({})
) -> dict[str, float]:
    """The model's own defaults of what the client left out. `options`: by the sampler's names, those of the API where
    they differ."""
    defaults = settings.sampling_defaults
    return {name: one for name, one in defaults.items() if options.get(name, name) not in body.model_fields_set}


class DeterministicBody(Body):
    deterministic: bool | None = given(
        None,
        "The same text whoever else is served and whatever happens, if it is greedy or has a seed. It costs speed, "
        "and not every engine can. Left out: as the server has it.",
    )

    def is_deterministic(self, settings: FrontSettings) -> bool:
        """As in `Request`."""
        return settings.deterministic if self.deterministic is None else self.deterministic

    def conflicts(self, settings: FrontSettings) -> Iterator[Problem]:
        yield from super().conflicts(settings)
        if settings.not_deterministic and self.is_deterministic(settings):
            yield "deterministic", settings.not_deterministic


class SamplingBody(DeterministicBody):
    temperature: float = sampled("temperature", "Randomness of sampling; 0: greedy.")
    top_p: float = top_p()
    min_p: float = sampled("min_p", "Least probability, relative to the most probable token's; 0: off.")
    repetition_penalty: float = sampled("repetition_penalty", "For tokens of prompt and answer; 1: off.")
    presence_penalty: float = sampled("presence_penalty", "For tokens that are in the answer already; 0: off.")
    frequency_penalty: float = sampled("frequency_penalty", "For tokens of the answer, per occurrence; 0: off.")
    seed: Annotated[int, integer()] | None = given(None, "The same seed gives the same text. Left out or -1: random.")
    stop: StopStrings = given((), "Stop strings, which end the answer.")
    stop_token_ids: Annotated[Sequence[int], token_ids(max_biased)] = given((), "Token ids that end the answer.")
    speculation: Speculation | None = None

    @property
    def most_drafts(self) -> int:
        """As in `Request`."""
        return MANY_DRAFTS if self.speculation is None else self.speculation

    def sampling(
        self,
        settings: FrontSettings,
        *,
        top_k: int,
        min_tokens: int,
        logprobs: int | None,
        defaults: Mapping[str, float] = MappingProxyType({}),
        **more: Any,
    ) -> SamplingParams:
        """`defaults`: see `left_out`; without them the usual ones."""
        values = {name: getattr(self, name) for name in _PLAIN} | {"top_k": top_k} | dict(defaults)
        ends = tuple(self.stop_token_ids)
        return sampling_of(values, settings, logprobs=logprobs, min_tokens=min_tokens, stop_token_ids=ends, **more)


def least_above_most(names: tuple[str, str], least: int, most: int) -> Iterator[Problem]:
    """`names` of the two in the client's API."""
    if least > most:
        yield names[0], f"{names[0]} is {least}, expected an integer in [0, {most}], at most {names[1]}"
