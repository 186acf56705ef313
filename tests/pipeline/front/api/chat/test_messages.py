"""Messages as chat templates know them."""

import pytest

from pipeline.front.api.chat.messages import assistant, call, call_id, numbered, result, with_ids, with_names

CALLED = assistant("", [call("call_1", "look_up", '{"word": "ring"}'), call("call_2", "clock", "")])


def test_arguments_are_values_and_what_is_no_json_stays_a_text():
    calls = [*CALLED["tool_calls"], call("call_3", "f", '{"word": '), call("call_4", "f", "null")]
    assert [one["function"]["arguments"] for one in calls] == [{"word": "ring"}, {}, '{"word": ', {}]


def test_results_get_the_names_of_their_tools_wherever_they_have_none():
    results = [result("call_2", "12:00"), result("call_1", "a queue", "other"), result("call_9", "?")]
    named = with_names([{"role": "user", "content": "?"}, CALLED, *results])
    assert [message.get("name") for message in named[2:]] == ["clock", "other", None]


def test_calls_without_an_id_name_no_result():
    several = assistant("", [call("", "f", "{}")])
    assert "name" not in with_names([several, result("", "x")])[1]


def test_calls_and_results_without_ids_get_them_by_name_or_in_order():
    calls = assistant("", [call("", "f", ""), call("", "g", ""), call("", "f", "")])
    results = [result("", "1", "g"), result("", "2"), result("own", "3"), result("", "4", "h"), result("", "5")]
    called, *answers = numbered([calls, *results])
    f, g, again = (one["id"] for one in called["tool_calls"])
    assert len({f, g, again}) == 3
    assert [one["tool_call_id"] for one in answers] == [g, f, "own", again, ""]
    assert numbered([CALLED, result("call_2", "x")]) == [CALLED, result("call_2", "x")]


@pytest.mark.parametrize("length", [9, 24])
def test_ids_fit_the_template_and_a_call_still_has_its_result(length):
    called, one, other = with_ids([CALLED, result("call_1", "a"), result("call_2", "b")], length)
    ids = [call["id"] for call in called["tool_calls"]]
    assert ids == [one["tool_call_id"], other["tool_call_id"]]
    assert len(set(ids)) == 2
    assert all(len(one) == length and one.isalnum() for one in ids)
    assert with_ids([called], length) == [called]  # what fits stays
    assert CALLED["tool_calls"][0]["id"] == "call_1"  # what was given is not changed


def test_ids_of_calls_differ_and_follow_from_the_answer():
    made = [call_id(seed, choice, number) for seed in ("a", "b") for choice in range(2) for number in range(2)]
    assert len(set(made)) == 8
    assert made[0] == call_id("a", 0, 0)
