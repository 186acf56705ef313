"""Whether a difference of two answers is seen, and what is none is not."""

from __future__ import annotations

import copy

import pytest

from scripts.verify.everything.answers import Scored, apart_before, differences, flip, normal, scored
from scripts.verify.everything.margins import near

CHUNK = {"id": "cmpl-1", "created": 5, "choices": [{
    "index": 0, "text": " a", "finish_reason": None,
    "logprobs": {"tokens": [" a"], "token_logprobs": [-0.5], "top_logprobs": [{" a": -0.5, " b": -1.0, " c": -2.0}]},
}]}  # fmt: skip
USAGE = {"id": "cmpl-1", "choices": [], "usage": {"completion_tokens": 2, "queue_time": 0.1, "weights": [[]]}}


def changed(change):
    other = copy.deepcopy(CHUNK)
    change(other["choices"][0])
    return other


def test_what_passes_is_no_difference():
    other = {**CHUNK, "id": "cmpl-2", "created": 6}
    usage = {**USAGE, "usage": {"completion_tokens": 2, "queue_time": 0.3, "weights": [[{"from": 0}]]}}
    assert differences([CHUNK, USAGE], [other, usage], 0) == []
    assert normal({"id": 7, "tokens": [{"id": 3}]}) == {"id": 7, "tokens": [{"id": 3}]}  # of tokens
    one, other = {"input_tokens": 9, "cache_read_input_tokens": 1}, {"input_tokens": 2, "cache_read_input_tokens": 8}
    assert normal(one) == normal(other)


def test_choices_may_progress_in_any_order():
    second = changed(lambda choice: choice.update(index=1))
    assert differences([CHUNK, second], [second, CHUNK], 0) == []
    assert differences([CHUNK, second], [CHUNK, CHUNK], 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda choice: choice.update(text=" b"),
        lambda choice: choice.update(finish_reason="stop"),
        lambda choice: choice.pop("finish_reason"),
        lambda choice: choice.update(logprobs=None),
        lambda choice: choice["logprobs"]["token_logprobs"].append(-1.0),
        lambda choice: choice["logprobs"]["token_logprobs"].__setitem__(0, -0.501),
        lambda choice: choice["logprobs"]["top_logprobs"][0].update({" b": -1.001}),
        lambda choice: choice["logprobs"]["top_logprobs"].__setitem__(0, None),
    ],
)
def test_what_differs_is_seen(change):
    assert differences([CHUNK], [changed(change)], 1e-4)
    assert differences([changed(change)], [CHUNK], 1e-4)


def test_missing_and_doubled_events_are_seen():
    assert differences([CHUNK, USAGE], [CHUNK], 0)
    assert differences([CHUNK, USAGE], [CHUNK, CHUNK, USAGE], 0)
    whole = {"usage": {"completion_tokens": 3}}
    assert differences([whole], [{"usage": {"completion_tokens": 4}}], 1)


def test_log_probabilities_have_a_tolerance():
    def nearly(choice):
        choice["logprobs"]["token_logprobs"][0] -= 5e-5
        choice["logprobs"]["top_logprobs"][0] = {" a": -0.50005, " b": -1.00005, " d": -2.00005}  # c and d are a tie

    assert differences([CHUNK], [changed(nearly)], 1e-4) == []
    assert differences([CHUNK], [changed(nearly)], 0)
    numbers = {"temperature": 0.5}
    assert differences([numbers], [{"temperature": 0.50005}], 1e-4)  # no log-probability


def test_tokens_of_all_forms_are_read():
    one = {"token": " a", "logprob": -0.5, "top_logprobs": [{"token": " a", "logprob": -0.5}]}
    of_chat = {"choices": [{"index": 1, "delta": {}, "logprobs": {"content": [one]}}]}
    of_response = {"output": [{"content": [{"text": " a", "logprobs": [one]}]}]}
    of_event = {"type": "response.output_text.delta", "delta": " a", "logprobs": [one]}
    again = {"type": "response.output_text.done", "text": " a", "logprobs": [one]}
    of_line = {"data": {"tokens": {"id": 3, "text": " a", "logprob": -0.5}}}
    found = [scored(events) for events in ([CHUNK], [of_chat], [of_response], [of_event, again], [of_line], [one])]
    assert [[*it] for it in found[:2]] == [[0], [1]]
    assert all([(token.token, token.logprob) for token in it.popitem()[1]] == [(" a", -0.5)] for it in found[:5])
    assert not found[5]


def test_where_texts_part_and_how_near_a_tie_it_is():
    def tokens(*pairs):
        texts, values = zip(*pairs, strict=True)
        told = {"tokens": texts, "token_logprobs": values}
        return scored([{"choices": [{"index": 0, "logprobs": told}]}])[0]

    one, other = tokens((" a", -0.5), (" b", -1.25)), tokens((" a", -0.75), (" c", -1.5), (" d", -2.0))
    at, apart, told = flip(one, other)
    assert (at, apart) == (1, 0.25)
    assert "' b'" in told
    assert "' c'" in told
    assert apart_before(one, other, at) == 0.25
    assert flip(one, one) is None


def test_a_text_is_judged_by_the_tokens_of_its_twin():
    def token(text, **top):
        return Scored(text, 0.0, top)

    twin = [token("a", a=-0.1), token("b", b=-1.0, bc=-1.5, c=-1.00005, d=-2.0), token("e", e=-0.1)]
    assert near(twin, "abe", "ace").near
    assert near(twin, "abe", "ade").near is False
    assert near(twin, "abe", "ade").place == ("", 1, "b", "d")
    assert near(twin, "abe", "axe") is None  # no margin is known
    assert near(twin, "abe", "abe") is None
