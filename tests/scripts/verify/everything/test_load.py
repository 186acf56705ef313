"""What is a fault, what is a near tie, and what is allowed. The server is asked nothing here."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts.verify.everything.answers import text_of
from scripts.verify.everything.asking import Asked
from scripts.verify.everything.engines import Served
from scripts.verify.everything.kinds import COMPLETIONS, DETERMINISTIC, Kind
from scripts.verify.everything.load import MixedLoad, error_of
from scripts.verify.survival.ordeal import Ordeal

IDS = {"old", "new"}


def answer(*tokens, weights=(("old", 0),)):
    """Of pairs of a token and its log-probability."""
    events = [
        {"choices": [{"index": 0, "text": token, "logprobs": {"tokens": [token], "token_logprobs": [value]}}]}
        for token, value in tokens
    ]
    named = [[{"id": one, "from": start} for one, start in weights]]
    return [*events, {"choices": [], "usage": {"completion_tokens": len(tokens), "weights": named}}]


USUAL = answer((" a", -0.5), (" b", -1.0))
TIE, APART = answer((" a", -0.5), (" c", -1.00005)), answer((" a", -0.5), (" c", -1.01))


def judged(events, *, exact=False, error="", lost=0, dropped=False, **kind):
    served = Served("x", Path(), (), (), exact, 1e-4, (), load_first=False)
    mix = [Kind("it", COMPLETIONS, {}, **kind)]
    load = MixedLoad(SimpleNamespace(port=0), served, mix, [USUAL], IDS, Ordeal(Path()))
    load.judge(0, Asked(events=events, error=error, lost=lost, dropped=dropped))
    asyncio.run(load.stop())
    return load.tally


def test_the_same_is_right():
    tally = judged(answer((" a", -0.5), (" b", -1.0), weights=(("old", 0), ("new", 1))), exact=True)
    assert (tally.wrong, tally.flips, tally.mixed, set(tally.weights)) == ([], {}, 1, IDS)


def test_a_near_tie_is_named_and_no_fault():
    tally = judged(TIE)
    assert not tally.wrong
    assert "token 1: ' b' -1.000000, now ' c' -1.000050" in next(iter(tally.told.values()))


@pytest.mark.parametrize(
    ("events", "more"),
    [
        (APART, {}),
        (TIE, {"exact": True}),
        (TIE, {"needs": (DETERMINISTIC,)}),
        (answer((" a", -0.6), (" c", -1.00001)), {}),  # it was another number before
        (USUAL[:2], {}),
        (answer((" a", -0.5), (" b", -1.0), weights=(("third", 0),)), {}),
        (answer((" a", -0.5), (" b", -1.0), weights=(("old", 1),)), {}),
    ],
)
def test_what_differs_otherwise_is_a_fault(events, more):
    tally = judged(events, **more)
    assert len(tally.wrong) == 1
    assert not tally.flips


def test_scores_of_prompts_may_be_lost_with_their_front():
    assert judged([], error="gone", lost=1, scored=True).lost_scores == 1
    assert judged([], error="gone", dropped=True, scored=True).lost_scores == 1  # while the client was away
    assert judged([], error="gone", lost=1).wrong
    assert judged([], error="gone", scored=True).wrong


def test_errors_of_all_forms_are_found():
    failed = {"type": "response.failed", "response": {"status": "failed", "error": {"code": "x"}}}
    last = {"data": {"finish_reason": "predict_failed", "generated_text": ""}}
    assert all(error_of([event]) for event in ({"error": {"message": "x"}}, failed, last))
    fine = ({"response": "text", "done": True}, {"response": {"error": None}}, {"data": {"finish_reason": "length"}})
    assert not any(error_of([event]) for event in fine)


def test_texts_of_all_forms_are_read():
    chat = [{"choices": [{"delta": {"content": "a"}}]}, {"choices": [{"delta": {"content": None}}]}, {"choices": []}]
    message = [{"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}}, {"type": "ping"}]
    response = [{"type": "response.output_text.delta", "delta": "a"}]
    whole = [{"choices": [{"message": {"content": "a"}}]}]
    assert {text_of(events) for events in (chat, message, response, whole, [{"choices": [{"text": "a"}]}])} == {"a"}
