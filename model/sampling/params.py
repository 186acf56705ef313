"""A request's sampling parameters, and the one place where they are checked."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ..errors import ModelError

GREEDY_BELOW = 1e-5  # vLLM's _SAMPLING_EPS: a lower temperature is greedy
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


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one request wants its tokens chosen. Meaning and ranges as in vLLM's ``SamplingParams``.

    Two differences: a ``logit_bias`` beyond ±100 is an error here and clamped there; a temperature between
    1e-5 and 0.01 is taken as it is here (the kernels work relative to the largest logit) and raised there.
    """

    temperature: float = 1.0  # 0: greedy
    top_k: int = 0  # 0, -1 or >= vocabulary: off
    top_p: float = 1.0  # 1: off
    min_p: float = 0.0  # least probability relative to the most probable token, 0: off
    repetition_penalty: float = 1.0  # over prompt and output, 1: off
    presence_penalty: float = 0.0  # over the output
    frequency_penalty: float = 0.0  # over the output, per occurrence
    seed: int | None = None  # None or -1: the sampler draws one
    logprobs: int | None = None  # of the chosen token and of this many best ones
    logit_bias: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))
    banned_token_ids: tuple[int, ...] = ()
    min_tokens: int = 0  # output tokens before which stop_token_ids are banned
    stop_token_ids: tuple[int, ...] = ()  # EOS included, if the request obeys it

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
        return bool(self.logit_bias or self.banned_token_ids or held_back) or self.penalised

    def validate(self, limits: SamplingLimits) -> None:
        """Raise `ParameterError` for the first parameter that is out of range."""
        self._validate_numbers()
        _integer("top_k", self.top_k, -1, None)
        _integer("min_tokens", self.min_tokens, 0, limits.max_length)
        if self.seed is not None:
            _integer("seed", self.seed, -(2**63), 2**64 - 1)
        if self.logprobs is not None:
            _integer("logprobs", self.logprobs, 0, min(limits.max_top_logprobs, limits.vocab_size))
        self._validate_tokens(limits)

    def _validate_numbers(self) -> None:
        _number("temperature", self.temperature, 0, math.inf)
        _number("top_p", self.top_p, 0, 1, above_low=True)
        _number("min_p", self.min_p, 0, 1)
        _number("repetition_penalty", self.repetition_penalty, 1 / MAX_REPETITION_PENALTY, MAX_REPETITION_PENALTY)
        _number("presence_penalty", self.presence_penalty, -2, 2)
        _number("frequency_penalty", self.frequency_penalty, -2, 2)

    def _validate_tokens(self, limits: SamplingLimits) -> None:
        biased = len(self.logit_bias) + len(self.banned_token_ids) + len(self.stop_token_ids)
        if biased > limits.max_biased_tokens:  # before each of very many is looked at
            names = "logit_bias, banned_token_ids and stop_token_ids together"
            raise ParameterError(names, f"{biased} tokens", f"at most {limits.max_biased_tokens}")
        _token_ids("logit_bias", self.logit_bias, limits.vocab_size)
        _token_ids("banned_token_ids", self.banned_token_ids, limits.vocab_size)
        _token_ids("stop_token_ids", self.stop_token_ids, limits.vocab_size)
        for token, bias in self.logit_bias.items():
            _number(f"logit_bias[{token}]", bias, -100, 100)


def _number(name: str, value: float, low: float, high: float, *, above_low: bool = False) -> None:
    numeric = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if numeric and low <= value <= high and not (above_low and value == low):
        return
    if high == math.inf:
        raise ParameterError(name, value, f"a finite number {'>' if above_low else '>='} {low}")
    raise ParameterError(name, value, f"a number in {'(' if above_low else '['}{low}, {high}]")


def _integer(name: str, value: int, low: int, high: int | None) -> None:
    integer = isinstance(value, int) and not isinstance(value, bool)
    if integer and low <= value and (high is None or value <= high):
        return
    allowed = f"an integer >= {low}" if high is None else f"an integer in [{low}, {high}]"
    raise ParameterError(name, value, allowed)


def _token_ids(name: str, ids: Iterable[int], vocab_size: int) -> None:
    for token in ids:
        if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < vocab_size:
            raise ParameterError(name, token, f"token ids in [0, {vocab_size - 1}]")
