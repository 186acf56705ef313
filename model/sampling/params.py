"""A request's sampling parameters, and the one place where they are checked."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, get_args, get_origin

import msgspec
from msgspec import Meta

from ..errors import ModelError

GREEDY_BELOW = 1e-5  # vLLM's _SAMPLING_EPS: a lower temperature is greedy
MAX_GRAMMAR_BYTES = 400_000  # of `SamplingParams.grammar`
MAX_REPETITION_PENALTY = 1e9  # and its inverse is the least: beyond, a logit could leave float32's range


class ParameterError(ModelError, ValueError):
    """A sampling parameter is out of range: the client's error."""

    def __init__(self, parameter: str, value: object, allowed: str) -> None:
        super().__init__(f"{parameter} is {reprlib.repr(value)}, expected {allowed}")  # it may be nested deeply
        self.parameter = parameter
        self.value = value
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class SamplingLimits:
    """What a sampler was built for."""

    vocab_size: int
    max_length: int  # tokens per sequence, prompt and output together
    max_top_logprobs: int = 20  # OpenAI's limit
    max_biased_tokens: int = 1024  # entries of logit_bias, banned_token_ids and stop_token_ids together


class SamplingParams(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How one request wants its tokens chosen. Meaning and ranges as in vLLM's ``SamplingParams``.

    Two differences: a ``logit_bias`` beyond ±100 is an error here and clamped there; a temperature between
    1e-5 and 0.01 is taken as it is here (the kernels work relative to the largest logit) and raised there.

    Each range stands here once: `validate` and `RANGES` read it. The kernels find a number by its name.
    """

    temperature: Annotated[float, Meta(ge=0)] = 1.0  # 0: greedy
    top_k: Annotated[int, Meta(ge=-1)] = 0  # 0, -1 or >= vocabulary: off
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0  # 1: off
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0  # least probability relative to the most probable token, 0: off
    repetition_penalty: Annotated[float, Meta(ge=1 / MAX_REPETITION_PENALTY, le=MAX_REPETITION_PENALTY)] = 1.0
    """Over prompt and output, 1: off."""
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0  # over the output
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0  # over the output, per occurrence
    seed: int | None = None  # None or -1: whoever admits the request draws one
    logprobs: int | None = None  # of the chosen token and of this many best ones
    logit_bias: dict[int, float] = {}
    banned_token_ids: tuple[int, ...] = ()
    min_tokens: int = 0  # output tokens before which stop_token_ids and the model's end tokens are banned
    stop_token_ids: tuple[int, ...] = ()
    grammar: str = ""  # what `model.grammar.grammar_text` made; only tokens that it allows are chosen

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def penalised(self) -> bool:
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1, 0, 0)

    @property
    def edited(self) -> bool:
        """Something changes the model's logits before a token is chosen."""
        held_back = self.min_tokens > 0 and bool(self.stop_token_ids)
        return bool(self.grammar or self.logit_bias or self.banned_token_ids or held_back) or self.penalised

    def validate(self, limits: SamplingLimits) -> None:
        """Raise `ParameterError` for the first parameter that is out of range."""
        for name, span in RANGES.items():
            _check_range(name, getattr(self, name), span)
        _integer("min_tokens", self.min_tokens, 0, limits.max_length)
        if self.seed is not None:
            _integer("seed", self.seed, -(2**63), 2**64 - 1)
        if self.logprobs is not None:
            _integer("logprobs", self.logprobs, 0, min(limits.max_top_logprobs, limits.vocab_size))
        if not isinstance(self.grammar, str):
            raise ParameterError("grammar", self.grammar, "a text that model.grammar.grammar_text made, or none")
        self._validate_tokens(limits)

    def _validate_tokens(self, limits: SamplingLimits) -> None:
        require_few(len(self.logit_bias) + len(self.banned_token_ids) + len(self.stop_token_ids), limits)
        _token_ids("logit_bias", self.logit_bias, limits.vocab_size)
        _token_ids("banned_token_ids", self.banned_token_ids, limits.vocab_size)
        _token_ids("stop_token_ids", self.stop_token_ids, limits.vocab_size)
        for token, bias in self.logit_bias.items():
            _number(f"logit_bias[{token}]", bias, -100, 100)


@dataclass(frozen=True, slots=True)
class Range:
    """Which numbers a parameter may have, bounds included but for `above`."""

    integer: bool
    low: float
    high: float | None
    above: bool  # `low` itself is not allowed


def _ranges() -> dict[str, Range]:
    found = {}
    for field in msgspec.structs.fields(SamplingParams):
        if get_origin(field.type) is Annotated:
            kind, meta = get_args(field.type)
            low = meta.ge if meta.gt is None else meta.gt
            found[field.name] = Range(kind is int, low, meta.le, above=meta.gt is not None)
    return found


RANGES = _ranges()
"""Of each parameter whose range is the same for every model."""


def require_few(biased: int, limits: SamplingLimits) -> None:
    """Raise `ParameterError` if that many tokens have a bias or a ban; before each of very many is looked at."""
    if biased > limits.max_biased_tokens:
        names = "logit_bias, banned_token_ids and stop_token_ids together"
        raise ParameterError(names, f"{biased} tokens", f"at most {limits.max_biased_tokens}")


def _check_range(name: str, value: float, span: Range) -> None:
    if span.integer:
        _integer(name, value, span.low, span.high)
    else:
        _number(name, value, span.low, math.inf if span.high is None else span.high, above_low=span.above)


def _number(name: str, value: float, low: float, high: float, *, above_low: bool = False) -> None:
    numeric = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if numeric and low <= value <= high and not (above_low and value == low):
        return
    if high == math.inf:
        raise ParameterError(name, value, f"a finite number {'>' if above_low else '>='} {low}")
    raise ParameterError(name, value, f"a number in {'(' if above_low else '['}{low}, {high}]")


def _integer(name: str, value: float, low: float, high: float | None) -> None:
    integer = isinstance(value, int) and not isinstance(value, bool)
    if integer and low <= value and (high is None or value <= high):
        return
    allowed = f"an integer >= {low}" if high is None else f"an integer in [{low}, {high}]"
    raise ParameterError(name, value, allowed)


def _token_ids(name: str, ids: Iterable[int], vocab_size: int) -> None:
    for token in ids:
        if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < vocab_size:
            raise ParameterError(name, token, f"token ids in [0, {vocab_size - 1}]")
