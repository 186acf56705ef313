"""Answers of /v1/messages from events that a test writes down, and what Anthropic's own package makes of them."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from pipeline.front.api.anthropic.answer import INVALID, SIGNATURE, Asked, MessagesWriter
from pipeline.front.api.anthropic.errors import anthropic_refusal
from pipeline.front.delivery.job import Begin, End, Text
from pipeline.front.http.errors import OVERLOADED, SERVER, UNAVAILABLE, ApiError
from pipeline.wire.delta import FinishReason
from tests.pipeline.front.api.responses.events import IDENTITY, answer_of, token

ASKED = Asked("tiny", 100, ("END", "STOP"))
EVENTS = TypeAdapter(RawMessageStreamEvent)
CALL = [("call", "weather"), ("arguments", '{"city": '), ("arguments", '"Rome"}'), ("end",)]
EVERYTHING = [("think", "Hm"), ("think", "."), "It ", "is", *CALL, *CALL]


def parsed(stream):
    """Events of a stream; each is named by its type, and one that Anthropic's package knows."""
    events = []
    *blocks, rest = stream.decode().split("\n\n")
    assert not rest
    for block in blocks:
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        if event["type"] not in ("ping", "error"):
            EVENTS.validate_python(event)
        events.append(event)
    return events


def accumulated(events):
    """The message that Anthropic's package makes of them."""
    snapshot, buffers = None, {}
    for event in events:
        if event["type"] != "ping":
            one = EVENTS.validate_python(event)
            snapshot = accumulate_event(event=one, current_snapshot=snapshot, json_bufs=buffers)
    return snapshot


def written(events, asked=ASKED):
    """Events of the stream, and the message that is not streamed; both say the same."""
    writer, other = MessagesWriter(IDENTITY, asked), MessagesWriter(IDENTITY, asked)
    stream = parsed(b"".join([*map(writer.write, events), writer.tail()]))
    for event in events:
        other.keep(event)
    whole = json.loads(other.whole())
    Message.model_validate(whole)
    return stream, whole


def streamed(*pieces, reason=FinishReason.EOS, asked=ASKED):
    events, whole = written(answer_of(*pieces, reason=reason), asked)
    got = accumulated(events).to_dict()
    assert {name: got[name] for name in whole} == whole
    return events, whole


def types(events):
    return [event["type"] for event in events]


def deltas(events):
    return [event["delta"] for event in events if event["type"] == "content_block_delta"]


# ---- the stream ----------------------------------------------------------------------------------------------------


def test_a_text():
    events, whole = streamed("It ", "was", "")
    assert types(events) == [
        "message_start", "ping", "content_block_start", "content_block_delta", "content_block_delta",
        "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip
    assert deltas(events) == [{"type": "text_delta", "text": "It "}, {"type": "text_delta", "text": "was"}]
    start = events[0]["message"]
    assert start == whole | {
        "content": [], "stop_reason": None, "usage": whole["usage"] | {"output_tokens": 0}
    }  # fmt: skip
    assert whole["content"] == [{"type": "text", "text": "It was"}]
    assert (whole["id"], whole["model"], whole["role"]) == (f"msg_{IDENTITY.seed}", "tiny", "assistant")
    assert (whole["stop_reason"], whole["stop_sequence"]) == ("end_turn", None)
    assert events[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}


def test_what_is_cached_is_no_input():
    events, whole = streamed("It")
    usage = {"input_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 2, "output_tokens": 1}
    assert whole["usage"] == events[-2]["usage"] == usage


def test_thinking_a_text_and_calls():
    events, whole = streamed(*EVERYTHING)
    starts = [event["content_block"]["type"] for event in events if event["type"] == "content_block_start"]
    assert starts == ["thinking", "text", "tool_use", "tool_use"]
    thinking, text, call, other = whole["content"]
    assert thinking == {"type": "thinking", "thinking": "Hm.", "signature": SIGNATURE}
    assert text == {"type": "text", "text": "It is"}
    assert (call["name"], call["input"]) == (other["name"], other["input"]) == ("weather", {"city": "Rome"})
    assert call["id"] != other["id"]
    assert call["id"].startswith("toolu_")
    assert whole["stop_reason"] == "tool_use"
    kinds = [delta["type"] for delta in deltas(events)]
    assert kinds == [*["thinking_delta"] * 2, "signature_delta", *["text_delta"] * 2, *["input_json_delta"] * 4]
    begun = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert begun[0] == {"type": "thinking", "thinking": "", "signature": ""}
    assert [block["input"] for block in begun[2:]] == [{}, {}]


def test_blocks_never_overlap_and_count_up():
    events, _ = streamed(*EVERYTHING, "and", ("think", "so"), *CALL, "end")
    inside = [event for event in events if event["type"].startswith("content_block")]
    assert [event["index"] for event in inside if event["type"] == "content_block_start"] == list(range(8))
    for before, after in pairwise(inside):
        begins = after["type"] == "content_block_start"
        assert after["index"] == before["index"] + begins
        assert begins == (before["type"] == "content_block_stop")


@pytest.mark.parametrize(
    "pieces", [EVERYTHING, ["", "a", "", ("think", ""), "b"], [("call", "f"), ("end",)], [""], []]
)
def test_nothing_is_empty(pieces):
    """But a call without arguments: its input is an object, and no event brings it."""
    events, whole = streamed(*pieces)
    assert all(delta.get("text", delta.get("thinking", delta.get("partial_json", "x"))) for delta in deltas(events))
    assert all(block.get("text", block.get("thinking", "x")) for block in whole["content"])


def test_an_answer_of_nothing():
    events, whole = streamed("")
    assert types(events) == ["message_start", "ping", "message_delta", "message_stop"]
    assert (whole["content"], whole["stop_reason"]) == ([], "end_turn")


def test_a_call_without_arguments():
    _, whole = streamed(("call", "now"), ("end",))
    assert whole["content"][0]["input"] == {}


@pytest.mark.parametrize("arguments", ['{"city": "Ro', "[1]", '"x"', "Rome"])
def test_arguments_that_are_no_object_are_told_as_they_are(arguments):
    _, whole = written(answer_of(("call", "f"), ("arguments", arguments), ("end",)))
    assert whole["content"][0]["input"] == {INVALID: arguments}


def test_a_call_that_is_cut_is_closed():
    events, whole = written(answer_of(*CALL[:2], reason=FinishReason.LENGTH), Asked("tiny", 2))
    assert types(events)[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert whole["stop_reason"] == "max_tokens"


def test_thinking_that_the_client_does_not_want():
    events, whole = streamed(("think", "Hm"), "It", asked=Asked("tiny", 100, thinking=False))
    assert [block["type"] for block in whole["content"]] == ["text"]
    assert "thinking" not in json.dumps(events)
    assert whole["usage"]["output_tokens"] == 2


# ---- why it ended --------------------------------------------------------------------------------------------------


def ended(reason, stop=-1, pieces=("It",), asked=ASKED):
    events = answer_of(*pieces)
    index = len(pieces)
    _, whole = written([*events[:-1], End(0, token(index, reason, stop=stop), 1, reason)], asked)
    return whole["stop_reason"], whole["stop_sequence"]


@pytest.mark.parametrize(
    ("reason", "stop", "told"),
    [
        (FinishReason.EOS, -1, ("end_turn", None)),
        (FinishReason.STOP, -1, ("end_turn", None)),  # its grammar allows nothing more
        (FinishReason.STOP, 0, ("stop_sequence", "END")),
        (FinishReason.STOP, 1, ("stop_sequence", "STOP")),
    ],
)
def test_which_stop_sequence_ended_it(reason, stop, told):
    assert ended(reason, stop) == told


def test_the_limit_is_the_client_s_or_the_model_s():
    assert ended(FinishReason.LENGTH, asked=Asked("tiny", 1)) == ("max_tokens", None)
    assert ended(FinishReason.LENGTH, asked=Asked("tiny", 2)) == ("model_context_window_exceeded", None)


def test_calls_that_are_cut_by_a_stop_sequence_are_none_to_be_run():
    assert ended(FinishReason.EOS, pieces=CALL) == ("tool_use", None)
    assert ended(FinishReason.EOS, pieces=[*CALL, *CALL[:-1]]) == ("end_turn", None)  # none to carry out
    assert ended(FinishReason.STOP, 0, pieces=CALL) == ("stop_sequence", "END")
    assert ended(FinishReason.LENGTH, pieces=CALL, asked=Asked("tiny", 4)) == ("max_tokens", None)


# ---- failures ------------------------------------------------------------------------------------------------------


def test_a_stream_that_fails():
    writer = MessagesWriter(IDENTITY, ASKED)
    before = writer.write(Begin(0, 5, 2)) + writer.write(Text(0, token(1), 0, "It"))
    events = parsed(before + writer.failure(ApiError(500, "the model failed", kind=SERVER)))
    assert events[-1] == {"type": "error", "error": {"type": "api_error", "message": "the model failed"}}


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (ApiError(400, "x"), 400, "invalid_request_error"),
        (ApiError(401, "x", kind="authentication_error"), 401, "authentication_error"),
        (ApiError(403, "x", kind="permission_error"), 403, "permission_error"),
        (ApiError(404, "x", kind="not_found_error"), 404, "not_found_error"),
        (ApiError(405, "x"), 405, "invalid_request_error"),
        (ApiError(413, "x"), 413, "request_too_large"),
        (ApiError(415, "x"), 415, "invalid_request_error"),
        (ApiError(429, "x", kind=OVERLOADED), 529, "overloaded_error"),
        (ApiError(503, "x", kind=OVERLOADED), 529, "overloaded_error"),
        (ApiError(503, "x", kind=UNAVAILABLE), 503, "api_error"),
        (ApiError(500, "x", kind=SERVER), 500, "api_error"),
        (ApiError(504, "x", kind="timeout_error"), 504, "timeout_error"),
    ],
)  # fmt: skip
def test_types_of_errors(error, status, kind):
    answered, body = anthropic_refusal(error, "req_1")
    told = {"type": "error", "error": {"type": kind, "message": "x"}, "request_id": "req_1"}
    assert (answered, json.loads(body)) == (status, told)


def test_a_prompt_that_is_too_long_is_told_so_that_claude_code_understands():
    error = ApiError(400, "This model's …", code="context_length_exceeded")
    assert json.loads(anthropic_refusal(error, "1")[1])["error"]["message"].startswith("prompt is too long: This")
