"""What clients of /v1/responses need: OpenAI's own package reads the answers here, and what Codex and the Agents SDK
require of them is written down, as their sources of 2026 have it."""

from __future__ import annotations

import json

import httpx
import pytest
from openai import OpenAI
from pydantic import BaseModel

from pipeline.front.api.responses.answer import ResponsesWriter
from pipeline.front.api.responses.items import CalledTool
from pipeline.front.delivery.job import Identity
from pipeline.front.http.errors import SERVER, ApiError
from pipeline.wire.delta import FinishReason
from tests.pipeline.front.api.responses.events import ASKED, IDENTITY, answer_of, parsed, read, written

CALL = [("call", "weather"), ("arguments", '{"city": '), ("arguments", '"Rome"}'), ("end",)]
PATCH = [("call", "patch"), ("arguments", '{"input": "+a'), ("arguments", '\\n"}'), ("end",)]
PIECES = [("think", "Hm"), "It ", "is.", *CALL, *PATCH]
TOOLS = {"patch": CalledTool("patch", custom=True)}


class Weather(BaseModel):
    city: str


def client(*pieces, reason=FinishReason.EOS, stream=None):
    """OpenAI's, whose server answers every request so."""
    made, whole = written(answer_of(*pieces, reason=reason), tools=TOOLS)

    def respond(request):
        if json.loads(request.content).get("stream"):
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=stream or made)
        return httpx.Response(200, json=whole)

    return OpenAI(
        api_key="none", base_url="http://test", http_client=httpx.Client(transport=httpx.MockTransport(respond))
    )


# ---- OpenAI's package ----------------------------------------------------------------------------------------------


def test_create():
    with client(*PIECES) as openai:
        response = openai.responses.create(input="x", model="tiny")
    assert (response.output_text, response.status, response.usage.total_tokens) == ("It is.", "completed", 16)
    thoughts, message, call, patch = response.output
    assert (thoughts.content[0].text, message.role) == ("Hm", "assistant")
    assert (call.name, json.loads(call.arguments), patch.input) == ("weather", {"city": "Rome"}, "+a\n")
    assert call.call_id != patch.call_id


def test_a_stream_adds_up_to_its_last_event():
    """The package builds the answer from the events, and refuses ids that change."""
    with client(*PIECES) as openai, openai.responses.stream(input="x", model="tiny") as stream:
        events = list(stream)
        response = stream.get_final_response()
    snapshots = [event.snapshot for event in events if event.type == "response.output_text.delta"]
    assert snapshots == ["It ", "It is."]
    (arguments,) = [event.snapshot for event in events if event.type == "response.function_call_arguments.delta"][1:]
    assert arguments == response.output[2].arguments == '{"city": "Rome"}'


def test_parse():
    with client('{"city": ', '"Rome"}') as openai:
        assert openai.responses.parse(input="x", model="tiny", text_format=Weather).output_parsed == Weather(
            city="Rome"
        )
        with openai.responses.stream(input="x", model="tiny", text_format=Weather) as stream:
            assert stream.get_final_response().output_parsed == Weather(city="Rome")


def test_a_stream_that_fails():
    writer = ResponsesWriter(IDENTITY, ASKED)
    *begun, _ = answer_of("It ")
    made = b"".join([*map(writer.write, begun), writer.failure(ApiError(500, "the model failed", kind=SERVER))])
    with client("x", stream=made) as openai, openai.responses.stream(input="x", model="tiny") as stream:
        last = list(stream)[-1]
    assert (last.type, last.response.error.message) == ("response.failed", "the model failed")


# ---- Codex ---------------------------------------------------------------------------------------------------------

ITEMS = {
    "message": {"role": str, "content": list},
    "reasoning": {"summary": list},
    "function_call": {"name": str, "arguments": str, "call_id": str},
    "custom_tool_call": {"name": str, "input": str, "call_id": str},
}
"""What an item must have; Codex passes over one that lacks something, without a word."""
COUNTS = ("input_tokens", "output_tokens", "total_tokens")


class Codex:
    """Its client takes items from `output_item.done` alone, shows deltas of the item that is open, and wants a last
    event `response.completed` with an id, and counts if there is usage; a stream that ends otherwise is tried again.
    It reads types in the data, not the names of events."""

    def __init__(self, stream):
        self.items, self.shown, self.thoughts, self.error, self.completed = [], "", "", None, None
        self._open = self._created = False
        for event in read(stream):
            self._take(event["type"].removeprefix("response."), event)

    def _take(self, kind, event):
        assert self.completed is None
        match kind:
            case "created":
                self._created = event["response"] is not None
            case "output_item.added" | "output_item.done":
                item = event["item"]
                assert all(type(item[name]) is kind for name, kind in ITEMS[item["type"]].items())
                self._open = kind == "output_item.added"
                self.items += [] if self._open else [item]
            case "output_text.delta":
                assert self._open
                self.shown += event["delta"]
            case "reasoning_text.delta":
                assert self._open
                assert type(event["content_index"]) is int
                self.thoughts += event["delta"]
            case "completed":
                usage = event["response"]["usage"]
                assert all(type(usage[name]) is int for name in COUNTS)
                assert type(usage["input_tokens_details"]["cached_tokens"]) is int
                assert type(usage["output_tokens_details"]["reasoning_tokens"]) is int
                self.completed = event["response"]["id"]
            case "failed":
                self.error = event["response"]["error"]
        assert self._created


def test_codex():
    codex = Codex(written(answer_of(*PIECES), tools=TOOLS)[0])
    assert codex.completed == f"resp_{IDENTITY.seed}"
    assert (codex.shown, codex.thoughts) == ("It is.", "Hm")
    assert [item["type"] for item in codex.items] == ["reasoning", "message", "function_call", "custom_tool_call"]
    assert codex.items[1]["content"][0]["text"] == "It is."


@pytest.mark.parametrize("code", ["context_length_exceeded", None])
def test_codex_learns_why_a_stream_failed(code):
    """It gives up on a prompt that is too long, and tries the rest again."""
    stream = ResponsesWriter(IDENTITY, ASKED).failure(ApiError(500, "no", code=code))
    assert Codex(stream).error == {"code": code or "server_error", "message": "no"}


# ---- Agents SDK ----------------------------------------------------------------------------------------------------


def test_agents_sdk():
    """Its runner reads the last event's response: items with ids that were never used before (by them it tells what
    it has sent already), calls with call ids of their own, and counts, of which none may be null."""
    stream, _ = written(answer_of(*PIECES), tools=TOOLS)
    response = parsed(stream)[-1]["response"]
    other = ResponsesWriter(Identity("f" * 32, 5), ASKED)
    for event in answer_of(*PIECES):
        other.keep(event)
    ids = [item["id"] for answer in (response, json.loads(other.whole())) for item in answer["output"]]
    assert len(set(ids)) == len(ids)
    calls = [item["call_id"] for item in response["output"] if "call_id" in item]
    assert len(set(calls)) == 2
    usage = response["usage"]
    assert None not in (*usage.values(), *usage["input_tokens_details"].values())


def test_agents_sdk_takes_three_events_for_the_end():
    for reason, kind in ((FinishReason.EOS, "completed"), (FinishReason.LENGTH, "incomplete")):
        stream, _ = written(answer_of("x", reason=reason))
        assert parsed(stream)[-1]["type"] == f"response.{kind}"
