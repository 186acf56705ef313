"""Ranges of the sampling parameters."""

import math

import msgspec
import pytest

from model.errors import ModelError
from model.sampling import RANGES, ParameterError, Sampler, SamplingLimits, SamplingParams
from model.sampling._kernels import PARAMETERS

LIMITS = SamplingLimits(vocab_size=100, max_length=50, max_top_logprobs=5, max_biased_tokens=4)

LEGAL = {
    "temperature": [0, 0.0, 1e-9, 1, 2, 100.0],
    "top_k": [-1, 0, 1, 100, 10**9],
    "top_p": [1, 1.0, 1e-12],
    "min_p": [0, 1, 0.5],
    "repetition_penalty": [1e-9, 1, 30, 1e9],
    "presence_penalty": [-2, 0, 2.0],
    "frequency_penalty": [-2.0, 0, 2],
    "seed": [None, -1, 0, 2**64 - 1, -(2**63)],
    "logprobs": [None, 0, 5],
    "logit_bias": [{}, {0: -100, 99: 100.0}],
    "banned_token_ids": [(), (0, 99)],
    "min_tokens": [0, 50],
    "stop_token_ids": [(), (99,)],
    "grammar": ["", "start: /a/"],
}
ILLEGAL = {
    "temperature": [-0.1, math.nan, math.inf, "1", None, True],
    "top_k": [-2, 1.0, "3", None, True],
    "top_p": [0, 1.0001, -1, math.nan],
    "min_p": [-0.01, 1.1, math.nan],
    "repetition_penalty": [0, -1, 9e-10, 1.1e9, math.inf, math.nan],
    "presence_penalty": [-2.1, 2.1, math.nan],
    "frequency_penalty": [-2.1, 2.1, math.nan],
    "seed": [2**64, -(2**63) - 1, 1.5, "7", True],
    "logprobs": [-1, 6, True, 1.0],
    "logit_bias": [{100: 1.0}, {-1: 1.0}, {1: 101}, {1: math.nan}, {"1": 1.0}],
    "banned_token_ids": [(100,), (-1,), (1.0,)],
    "min_tokens": [-1, 51, 1.0],
    "stop_token_ids": [(100,), ("a",)],
    "grammar": [None, {"type": "object"}],
}


def pairs(table):
    return [(name, value) for name, values in table.items() for value in values]


def test_the_tables_cover_every_parameter():
    assert set(LEGAL) == set(ILLEGAL) == set(SamplingParams.__struct_fields__)


def test_the_kernels_act_on_every_number():
    """By its name: a number that none of them reads would be ignored."""
    numbers = {field.name for field in msgspec.structs.fields(SamplingParams) if "float" in str(field.type)}
    assert set(PARAMETERS) == numbers - {"logit_bias"} | {"top_k"} == set(RANGES)
    for name in PARAMETERS:
        sampler = Sampler(LIMITS, 1)
        sampler.admit(0, SamplingParams(seed=1, **{name: 0.75}), [1])
        assert sampler.columns[name][0] == 0.75


@pytest.mark.parametrize(("name", "value"), pairs(LEGAL))
def test_legal_extremes_are_accepted(name, value):
    SamplingParams(**{name: value}).validate(LIMITS)


@pytest.mark.parametrize(("name", "value"), pairs(ILLEGAL))
def test_an_error_names_parameter_value_and_range(name, value):
    with pytest.raises(ParameterError) as caught:
        SamplingParams(**{name: value}).validate(LIMITS)
    error = caught.value
    assert isinstance(error, ModelError)
    assert error.parameter.startswith(name)
    assert repr(error.value) in str(error)
    assert error.allowed in str(error)


def test_too_many_biased_tokens_are_counted_together():
    SamplingParams(logit_bias={1: 1.0}, banned_token_ids=(2, 3), stop_token_ids=(4,)).validate(LIMITS)
    with pytest.raises(ParameterError, match=r"5 tokens.*at most 4"):
        SamplingParams(logit_bias={1: 1.0}, banned_token_ids=(2, 3), stop_token_ids=(4, 5)).validate(LIMITS)


def test_the_models_logits_are_edited_by_what_changes_them_and_nothing_else():
    assert not SamplingParams(temperature=0, top_k=3, top_p=0.5, seed=4, stop_token_ids=(1,)).edited
    assert not SamplingParams(logprobs=1, min_tokens=1).edited
    for change in (
        {"repetition_penalty": 1.1},
        {"presence_penalty": 0.1},
        {"frequency_penalty": -0.1},
        {"logit_bias": {1: 1.0}},
        {"banned_token_ids": (1,)},
        {"min_tokens": 1, "stop_token_ids": (1,)},
        {"grammar": "start: /a/"},
    ):
        assert SamplingParams(temperature=0, **change).edited
