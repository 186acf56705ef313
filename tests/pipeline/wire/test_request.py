"""Requests and replies go through their bytes as they are."""

from __future__ import annotations

from array import array

import msgspec
import pytest

from model.sampling import SamplingParams
from pipeline.wire.request import (
    Accepted,
    Cancel,
    Choice,
    Encode,
    Encoded,
    GoOn,
    Refused,
    Request,
    Started,
    Submit,
    choose_seeds,
    unpack_message,
    unpack_reply,
    unpack_request,
)

SAMPLING = SamplingParams(
    temperature=0.5, top_k=3, top_p=0.9, logprobs=2, logit_bias={5: 1.5, 7: -2.0}, banned_token_ids=(1, 2),
    stop_token_ids=(9,), min_tokens=2,
)  # fmt: skip
REQUEST = Request(SAMPLING, 40, stop=("\n\n", "Ende"), include_stop=True, open_ended=True, raw_logit=True)


def test_what_a_client_asks_for():
    assert unpack_request(REQUEST.pack()) == REQUEST
    assert unpack_request(Request(SamplingParams(temperature=0), 1).pack()) == Request(
        SamplingParams(temperature=0), 1
    )


@pytest.mark.parametrize("prompt", ["Grüße, 世界 🙂", "", array("i", [1, 2, 31999]), array("i")],
                         ids=["text", "empty", "ids", "no ids"])  # fmt: skip
def test_a_request_with_several_choices(prompt):
    choices = (Choice(7, 1), Choice(8, 2**64 - 1))
    submit = Submit.of(choices, prompt, REQUEST, add_special=False, arrival_ns=123)
    assert unpack_message(submit.pack()) == submit
    assert (submit.request, submit.size, submit.resumed) == (7, len(prompt), False)
    assert (submit.text is None, array("i", submit.token_ids)) == (
        (False, array("i")) if isinstance(prompt, str) else (True, prompt)
    )
    again = submit.with_choices([Choice(8, 2**64 - 1, 1, array("i", [4, 5]).tobytes())])
    assert unpack_message(again.pack()) == again
    assert again.resumed
    assert again.params is submit.params  # encoded once


@pytest.mark.parametrize(("deadline_ns", "then"), [(0, 0), (170, 9_070)])
def test_the_clock_of_another_machine(deadline_ns, then):
    submit = Submit.of((Choice(1),), "Hi", Request(SAMPLING, 5), arrival_ns=100, deadline_ns=deadline_ns)
    assert (submit.arrived(9_000).arrival_ns, submit.arrived(9_000).deadline_ns) == (9_000, then)


def test_a_text_without_utf_8_form():
    with pytest.raises(UnicodeEncodeError):
        Submit.of((Choice(1),), "\ud800", REQUEST).pack()


def test_a_client_that_is_gone():
    assert unpack_message(Cancel(2**63).pack()) == Cancel(2**63)


@pytest.mark.parametrize(
    "message", [Encode(2**63, 3, "Hé 🦙", 5, plain=(1, 2)), Encode(1, 0, "", 0, add_special=False), GoOn(2**63)]
)
def test_a_text_to_encode(message):
    assert unpack_message(message.pack()) == message


@pytest.mark.parametrize(
    "reply",
    [
        Accepted(1, 0, 5),
        Refused(2, 3, 400, "too long", "prompt", "code"),
        Refused(2, 0, 500, "x"),
        Started(3, 1, 9, 4),
        Encoded(4, 2, 7, b"\0" * 8, last=False),
    ],
)
def test_replies(reply):
    assert unpack_reply(reply.pack()) == reply


def test_a_record_of_another_kind_is_a_fault():
    with pytest.raises(msgspec.ValidationError):
        unpack_reply(Submit.of((Choice(1),), "x", REQUEST).pack())


def test_seeds_of_choices():
    def seeds(**sampling):
        return choose_seeds(Request(SamplingParams(**sampling), 1), 3)

    assert seeds(temperature=0.0, seed=5) == [None] * 3
    assert seeds(temperature=1.0, seed=2**64 - 2) == [2**64 - 2, 2**64 - 1, 0]
    drawn = seeds(temperature=1.0)
    assert len(set(drawn)) == 3
    assert all(0 <= seed < 2**63 for seed in drawn)
