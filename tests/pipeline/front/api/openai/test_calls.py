"""Reasoning and calls of tools in /v1/chat/completions: what is asked for, and what is answered."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import orjson
import pytest

from model.demo import DEMO_DIR
from model.response import Mark, Opened, choose_format
from model.tokenizer import load_tokenizer
from pipeline.front.api.body import Reading
from pipeline.front.api.openai.chat import parse_chat
from pipeline.front.delivery.job import Begin, Identity
from pipeline.front.http.errors import ApiError
from pipeline.front.settings import FrontSettings
from pipeline.wire.delta import Delta, FinishReason
from pipeline.wire.request import unpack_request
from tests.pipeline.front.conftest import DEFAULTS

TOKENIZER = load_tokenizer(DEMO_DIR)
SETTINGS = FrontSettings(**DEFAULTS, response_format=choose_format(TOKENIZER, "hermes", "think"))
SCHEMA = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
LOOK_UP = {"type": "function", "function": {"name": "look_up", "description": "Look up.", "parameters": SCHEMA}}
CLOCK = {"type": "function", "function": {"name": "clock"}}
CALLING = {"role": "assistant", "content": "So", "tool_calls": [{"function": {"name": "clock"}}]}
PATCH = {"type": "custom", "custom": {"name": "patch"}}
USER = {"role": "user", "content": "What is a ring?"}


def job(settings=SETTINGS, **body):
    asked = {"messages": [USER], "tools": [LOOK_UP, CLOCK], **body}
    return parse_chat(orjson.loads(orjson.dumps(asked)), Identity("ab" * 16, 7), TOKENIZER, Reading(settings))


def deltas(text, reason, rng=None):
    """Of a text that is cut into tokens anywhere."""
    cuts = sorted(rng.sample(range(len(text) + 1), min(len(text), 12))) if rng else []
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    ends = [FinishReason.NONE] * (len(pieces) - 1) + [reason]
    return [
        Delta(1, 0, index + 1, 7, -0.5, end, piece)
        for index, (piece, end) in enumerate(zip(pieces, ends, strict=True))
    ]


def whole(text, reason=FinishReason.EOS, **body):
    asked = job(**body)
    (choice,), read = asked.writer.choices, asked.reader(0)
    choice.keep(Begin(0, 5, 2))
    for event in read(deltas(text, reason)):
        choice.keep(event)
    (answer,) = json.loads(asked.writer.whole())["choices"]
    return answer


def streamed(text, reason=FinishReason.EOS, rng=None, **body):
    """Deltas, and the reason of the end."""
    asked = job(stream=True, **body)
    (choice,), read = asked.writer.choices, asked.reader(0)
    events = [Begin(0, 5, 2), *(event for delta in deltas(text, reason, rng) for event in read([delta]))]
    lines = b"".join(map(choice.write, events)).decode().split("\n\n")[:-1]
    choices = [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines]
    return [one["delta"] for one in choices], choices[-1]["finish_reason"]


def joined(parts):
    """A message from its deltas, as clients put it together."""
    message = {"content": "", "reasoning_content": "", "tool_calls": []}
    for part in parts:
        for name in ("content", "reasoning_content"):
            message[name] += part.get(name, "")
        for call in part.get("tool_calls", ()):
            kind = next(one for one in ("function", "custom") if one in call)
            if "id" in call:
                assert call["index"] == len(message["tool_calls"])
                message["tool_calls"].append({name: one for name, one in call.items() if name != "index"})
            else:
                ((name, more),) = call[kind].items()
                message["tool_calls"][call["index"]][kind][name] += more
    return message


ONE = '<tool_call>\n{"name": "look_up", "arguments": {"word": "ring"}}\n</tool_call>'
TWO = ONE + '\n<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'
TEXTS = {
    "text": "Just <b>text</b>, {\"name\": \"look_up\"} included. ",
    "one": ONE,
    "two": TWO,
    "everything": "<think>\nHm.\n</think>\n\nI look.\n" + TWO,
    "thoughts": "<think>\nHm.\n</think>\n\nIt is round.",
    "unknown": ONE.replace("look_up", "nonsense"),
    "cut": ONE[:-20],
    "cut before its name": ONE[:15],
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("reason", [FinishReason.EOS, FinishReason.LENGTH])
def test_a_stream_says_what_the_whole_answer_says(name, reason):
    rng, answer = random.Random(3), whole(TEXTS[name], reason)
    message = {"content": "", "reasoning_content": "", "tool_calls": [], **answer["message"]}
    message["content"] = message["content"] or ""
    for _ in range(20):
        parts, finish = streamed(TEXTS[name], reason, rng)
        assert joined(parts) == {one: message[one] for one in ("content", "reasoning_content", "tool_calls")}
        assert finish == answer["finish_reason"]
        assert all(part or index == len(parts) - 1 for index, part in enumerate(parts))  # no empty deltas
        assert all(len(part.get("tool_calls", [0])) == 1 for part in parts)


def test_calls_are_told_from_text():
    answer = whole(TEXTS["everything"])
    assert answer["finish_reason"] == "tool_calls"
    message = answer["message"]
    assert (message["content"], message["reasoning_content"]) == ("I look.", "Hm.")
    assert [call["function"] for call in message["tool_calls"]] == [
        {"name": "look_up", "arguments": '{"word": "ring"}'}, {"name": "clock", "arguments": "{}"},
    ]  # fmt: skip
    assert len({call["id"] for call in message["tool_calls"]}) == 2


def test_content_is_null_where_there_are_calls_alone():
    assert whole(ONE)["message"]["content"] is None
    assert whole("")["message"]["content"] == ""


def test_a_call_that_is_cut_by_the_limit_ends_with_length():
    answer = whole(TEXTS["cut"], FinishReason.LENGTH)
    assert answer["finish_reason"] == "length"
    assert answer["message"]["tool_calls"][0]["function"]["arguments"].startswith('{"word"')


def test_a_call_that_a_stop_string_has_cut_is_none_to_carry_out():
    for text, reason in ((ONE + "\n" + TEXTS["cut"], "stop"), (ONE + "\nWell", "tool_calls"), (ONE, "tool_calls")):
        assert whole(text, FinishReason.STOP)["finish_reason"] == reason
        assert streamed(text, FinishReason.STOP, random.Random(1))[1] == reason


def test_a_name_that_is_no_tools_is_text():
    answer = whole(TEXTS["unknown"])
    assert (answer["finish_reason"], answer["message"]["content"]) == ("stop", TEXTS["unknown"])


def test_without_tools_only_reasoning_is_looked_for():
    for body in ({"tools": []}, {"tool_choice": "none"}):
        message = whole(TEXTS["everything"], **body)["message"]
        assert message["reasoning_content"] == "Hm."
        assert message["content"] == "I look.\n" + TWO


def test_reasoning_can_be_left_out():
    answer = whole(TEXTS["thoughts"], include_reasoning=False)
    assert answer["message"] == {"role": "assistant", "content": "It is round.", "refusal": None}
    assert joined(streamed(TEXTS["thoughts"], include_reasoning=False)[0])["reasoning_content"] == ""


def test_a_custom_tool_takes_a_text():
    text = ONE.replace("look_up", "patch").replace('{"word": "ring"}', json.dumps({"input": 'a "b"\n'}))
    (call,) = whole(text, tools=[PATCH])["message"]["tool_calls"]
    assert (call["type"], call["custom"]) == ("custom", {"name": "patch", "input": 'a "b"\n'})
    for seed in range(20):
        assert joined(streamed(text, rng=random.Random(seed), tools=[PATCH])[0])["tool_calls"] == [call]


def test_each_token_has_its_log_probability_once():
    rng = random.Random(5)
    for _ in range(10):
        asked = job(stream=True, logprobs=True)
        (choice,), read = asked.writer.choices, asked.reader(0)
        tokens = deltas(TEXTS["everything"], FinishReason.EOS, rng)
        lines = b"".join(choice.write(event) for token in tokens for event in read([token])).decode().split("\n\n")
        choices = [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines[:-1]]
        assert sum(len(one["logprobs"]["content"]) for one in choices if one["logprobs"]) == len(tokens)


# ---- requests ----------------------------------------------------------------------------------------------------


def test_the_template_shows_tools_calls_and_results():
    calls = [{"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"word": "ring"}'}}]
    history = [USER, {"role": "assistant", "content": None, "tool_calls": calls},
               {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "A queue."}]}]  # fmt: skip
    (part,) = job(messages=history).parts
    for shown in ('"name": "look_up"', '"arguments": {"word": "ring"}', "A queue.", '"description": "Look up."'):
        assert shown in part.prompt, shown


@pytest.mark.parametrize(
    ("body", "guaranteed"),
    [
        ({}, None),
        ({"tool_choice": "none"}, None),
        ({"tool_choice": "required"}, (1, None, ["look_up", "clock"])),
        ({"tool_choice": {"type": "function", "function": {"name": "clock"}}}, (1, 1, ["clock"])),
        ({"tool_choice": "required", "parallel_tool_calls": False}, (1, 1, ["look_up", "clock"])),
        ({"parallel_tool_calls": False}, (0, 1, ["look_up", "clock"])),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [
                {"type": "function", "function": {"name": "clock"}}]}}},
            (0, None, ["clock"]),
        ),
        ({"response_format": {"type": "json_object"}}, (0, None, ["look_up", "clock"])),
    ],
)  # fmt: skip
def test_what_is_guaranteed(body, guaranteed):
    form = job(**body).form
    if guaranteed is None:
        assert form is None
    else:
        shape = form.value
        assert (shape.least, shape.most, [tool.name for tool in shape.tools]) == guaranteed
        assert shape.text == (shape.least == 0 and shape.body is None)


def test_a_text_that_goes_on_calls_by_a_mark():
    form = replace(choose_format(TOKENIZER, "llama3_json", "none"), anchors=("<|assistant|>",))
    bare = FrontSettings(**DEFAULTS, response_format=form)
    messages = [USER, {"role": "assistant", "content": "So"}]
    shape = job(bare, messages=messages, continue_final_message=True, tool_choice="required").form.value
    assert shape.opened is Opened.TEXT
    assert job(bare, tool_choice="required").form.value.opened is Opened.NOTHING


def test_texts_between_marks_are_read_and_written_so():
    marked = replace(choose_format(TOKENIZER, "hermes", "none"), text_opens=(Mark("<say>"),))
    asked = job(FrontSettings(**DEFAULTS, response_format=marked), tools=[], response_format={"type": "json_object"})
    assert asked.form.value.body == ("json_object", None)
    assert asked.reader is not None


def test_a_schema_holds_behind_the_reasoning():
    form = job(tools=[], response_format={"type": "json_object"}).form
    assert (form.parameter, form.value.body, form.value.tools) == ("response_format", ("json_object", None), ())
    assert job(response_format={"type": "json_object"}).form.parameter == "response_format"
    plain = FrontSettings(**DEFAULTS, response_format=choose_format(TOKENIZER, "hermes", "none"))
    assert job(plain, tools=[], response_format={"type": "json_object"}).form.kind == "json_object"


@pytest.mark.parametrize(
    ("body", "parameter", "told"),
    [
        ({"tools": [{"type": "function"}]}, "tools[0].function", "tools[0].function is missing"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "other tools are not supported"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "expected"),
        ({"tools": [LOOK_UP, LOOK_UP]}, "tools", "two tools with the name 'look_up'"),
        ({"tool_choice": "sometimes"}, "tool_choice", "none, auto, required"),
        ({"tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice", "look_up, clock"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice", "tools has no tool"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools.mode", "auto or required"),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}},
            "tool_choice", "allowed tools",
        ),
        (
            {"messages": [USER, CALLING], "continue_final_message": True}, "messages", "calls tools, so that",
        ),
        ({"messages": [{**USER, "tool_calls": [{"id": "x"}]}]}, "messages[0].tool_calls[0].function", "is missing"),
        (
            {"messages": [{**USER, "tool_calls": [{"function": {"name": "f", "arguments": 5}}]}]},
            "messages[0].tool_calls[0].function.arguments", "a text of JSON, or the object itself",
        ),
        (
            {"messages": [USER, {**CALLING, "tool_calls": [{"function": 1}] * 9}]},
            "messages[1].tool_calls[0].function", "is 1, expected an object",
        ),
        ({"functions": [{"name": "f"}]}, "functions", "use tools"),
        ({"reasoning_format": "none"}, "reasoning_format", "not supported"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(body, parameter, told):
    with pytest.raises(ApiError) as refused:
        job(**body)
    assert (refused.value.status, refused.value.parameter) == (400, parameter), refused.value.message
    assert told in refused.value.message


def test_a_model_whose_calls_are_not_known_gets_no_tools():
    with pytest.raises(ApiError, match=r"set pipeline\.tool_format"):
        job(FrontSettings(**DEFAULTS))
    assert job(FrontSettings(**DEFAULTS), tool_choice="none").reader is None


def test_marks_arrive_whether_they_are_special_or_not():
    (part,) = job().parts
    assert unpack_request(part.params.pack()).shown_ids == tuple(sorted(SETTINGS.response_format.shown_ids))
