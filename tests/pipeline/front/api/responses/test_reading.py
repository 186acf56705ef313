"""From the tokens of a model to items: whatever way its answer is cut, they are the same."""

from __future__ import annotations

import json

import pytest

from model.demo import DEMO_DIR
from model.response import choose_format
from model.tokenizer import load_tokenizer
from pipeline.front.api.body import Reading
from pipeline.front.api.responses.request import parse_responses
from pipeline.front.delivery.job import Begin
from pipeline.front.settings import FrontSettings
from pipeline.wire.delta import FinishReason
from tests.pipeline.front.api.responses.events import IDENTITY, parsed, token
from tests.pipeline.front.conftest import DEFAULTS

TOKENIZER = load_tokenizer(DEMO_DIR)
SETTINGS = FrontSettings(**DEFAULTS, response_format=choose_format(TOKENIZER, "hermes", "think"))
TOOLS = [{"type": "function", "name": "weather"}, {"type": "custom", "name": "shell"}]
ANSWER = (
    "<think>Hm.</think>\nI look.\n"
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "shell", "arguments": {"input": "echo \\"a\\"\\n"}}\n</tool_call>'
)


def answered(text, size, reason=FinishReason.EOS, **body):
    """Events of the stream of an answer that comes in pieces of so many characters."""
    asked = {"input": "x", "stream": True, "tool_choice": "auto", "tools": TOOLS, **body}
    job = parse_responses(asked, IDENTITY, TOKENIZER, Reading(SETTINGS))
    (writer,), read = job.writer.choices, job.reader(0)
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    ends = [FinishReason.NONE] * (len(pieces) - 1) + [reason]
    deltas = [token(index, end, text=piece) for index, (piece, end) in enumerate(zip(pieces, ends, strict=True), 1)]
    events = [Begin(0, 5, 0), *(event for delta in deltas for event in read([delta]))]
    return parsed(b"".join([*map(writer.write, events), job.writer.tail()]))


def without_counts(events):
    return {name: value for name, value in events[-1]["response"].items() if name != "usage"}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 30])
def test_an_answer_in_pieces(size):
    events = answered(ANSWER, size)
    thoughts, message, call, shell = events[-1]["response"]["output"]
    assert thoughts["content"][0]["text"] == "Hm."
    assert message["content"][0]["text"] == "I look."
    assert (call["name"], json.loads(call["arguments"])) == ("weather", {"city": "Rome"})
    assert (shell["name"], shell["input"]) == ("shell", 'echo "a"\n')
    assert without_counts(events) == without_counts(answered(ANSWER, len(ANSWER)))
    assert all(event["delta"] for event in events if event["type"].endswith(".delta"))


def test_a_call_that_is_cut_is_incomplete():
    events = answered(ANSWER[: ANSWER.index("Rome")], 3, FinishReason.LENGTH)
    response = events[-1]["response"]
    assert [item["status"] for item in response["output"]] == ["completed", "completed", "incomplete"]
    assert response["output"][-1]["arguments"] == '{"city": "'
    assert response["status"] == "incomplete"


def test_without_tools_a_call_is_text():
    text = ANSWER[ANSWER.index("<tool_call>") :]
    (message,) = answered(text, 5, tools=[])[-1]["response"]["output"]
    assert message["content"][0]["text"] == text


def test_reasoning_is_counted_in_tokens():
    usage = answered("<think>one two</think>three", 5)[-1]["response"]["usage"]
    assert 0 < usage["output_tokens_details"]["reasoning_tokens"] < usage["output_tokens"]
