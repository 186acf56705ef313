"""Parameters that all APIs have in common."""

from __future__ import annotations

from model.sampling import MAX_REPETITION_PENALTY, SamplingLimits
from pipeline.front.api.openapi.schema import Schema, any_of, array, integer, number, text
from pipeline.front.settings import FrontSettings
from pipeline.wire.request import MAX_STOP_LENGTH, MAX_STOPS


def sampling_parameters(settings: FrontSettings) -> dict[str, Schema]:
    penalty = MAX_REPETITION_PENALTY
    return {
        "temperature": number("Randomness of sampling; 0: greedy.", 0, default=1.0),
        "top_p": number(
            "Sample from the most probable tokens that together have this probability; 1: off.",
            high=1,
            exclusiveMinimum=0,
            default=1.0,
        ),
        "min_p": number("Least probability, relative to the most probable token's; 0: off.", 0, 1, default=0.0),
        "repetition_penalty": number(
            "For tokens of prompt and answer, above 1 against repetition; 1: off.", 1 / penalty, penalty, default=1.0
        ),
        "presence_penalty": number("For tokens that are in the answer already; 0: off.", -2, 2, default=0.0),
        "frequency_penalty": number("For tokens of the answer, per occurrence; 0: off.", -2, 2, default=0.0),
        "seed": integer("The same seed gives the same text. Left out or -1: random."),
        "stop": stop_strings(),
        "stop_token_ids": array(
            token_id(settings), "Token ids that end the answer.", maxItems=biased_tokens(settings), default=[]
        ),
    }


def stop_strings() -> Schema:
    one = text(minLength=1, maxLength=MAX_STOP_LENGTH)
    return any_of(one, array(one, maxItems=MAX_STOPS), meaning="Stop strings, which end the answer.", default=[])


def token_id(settings: FrontSettings) -> Schema:
    return integer("", 0, settings.vocab_size - 1)


def biased_tokens(settings: FrontSettings) -> int:
    """Of `stop_token_ids` and `logit_bias` together."""
    return SamplingLimits(settings.vocab_size, settings.max_length).max_biased_tokens
