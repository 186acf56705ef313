"""Requests and replies go through their bytes as they are."""

from __future__ import annotations

from array import array

import pytest

from model.sampling import SamplingParams
from pipeline.wire.request import (
    Accepted,
    Cancel,
    Choice,
    GenerationParams,
    Refused,
    Started,
    Submit,
    choose_seeds,
    first_request,
    unpack_reply,
    unpack_request,
)

SAMPLING = SamplingParams(
    temperature=0.5, top_k=3, top_p=0.9, logprobs=2, logit_bias={5: 1.5, 7: -2.0}, banned_token_ids=(1, 2),
    stop_token_ids=(9,), min_tokens=2,
)  # fmt: skip
PARAMS = GenerationParams(SAMPLING, 40, stop=("\n\n", "Ende"), include_stop=True, open_ended=True, raw_logit=True)


@pytest.mark.parametrize("prompt", ["Grüße, 世界 🙂", "", array("i", [1, 2, 31999])], ids=["text", "empty", "ids"])
def test_a_request_with_several_choices(prompt):
    choices = (Choice(7, 1), Choice(8, 2**64 - 1, array("i", [4, 5]), 16))
    submit = Submit(choices, prompt, PARAMS, add_special=False, arrival_ns=123)
    record = submit.pack()
    assert unpack_request(record) == submit
    assert first_request(record) == 7
    resumed = submit.resume(choices[1:])
    assert unpack_request(resumed.pack()) == resumed
    assert resumed.resumed


def test_a_text_without_utf_8_form():
    with pytest.raises(UnicodeEncodeError):
        Submit((Choice(1),), "\ud800", PARAMS).pack()


def test_a_client_that_is_gone():
    assert unpack_request(Cancel(2**63).pack()) == Cancel(2**63)


@pytest.mark.parametrize(
    "reply", [Accepted(1, 5), Refused(2, 400, "too long", "prompt", "code"), Refused(2, 500, "x"), Started(3, 9, 4)]
)
def test_replies(reply):
    assert unpack_reply(reply.pack()) == reply


def test_seeds_of_choices():
    def seeds(**sampling):
        return choose_seeds(GenerationParams(SamplingParams(**sampling), 1), 3)

    assert seeds(temperature=0.0, seed=5) == [None] * 3
    assert seeds(temperature=1.0, seed=2**64 - 2) == [2**64 - 2, 2**64 - 1, 0]
    drawn = seeds(temperature=1.0)
    assert len(set(drawn)) == 3
    assert all(0 <= seed < 2**63 for seed in drawn)
