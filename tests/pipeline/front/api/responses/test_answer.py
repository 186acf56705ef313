"""Answers of /v1/responses: their events in order, items that are made once, and what a cut or a failure leaves."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from openai.types.responses import Response

from model.demo import DEMO_DIR
from model.tokenizer import load_tokenizer
from pipeline.front.api.responses.answer import ResponsesWriter
from pipeline.front.api.responses.items import CalledTool
from pipeline.front.delivery.job import Begin, End, Identity, Reasoning, Text
from pipeline.front.http.errors import OVERLOADED, SERVER, ApiError
from pipeline.wire.delta import FinishReason
from tests.pipeline.front.api.responses.events import (
    ASKED,
    IDENTITY,
    REPEATED,
    answer_of,
    parsed,
    streamed,
    token,
    types,
    written,
)

CALL = [("call", "weather"), ("arguments", '{"city": '), ("arguments", '"Rome"}'), ("end",)]
SHELL = {"shell": CalledTool("shell", custom=True)}
EVERYTHING = [("think", "Hm"), ("think", "."), "It ", "is", *CALL, *CALL]


def deltas(events):
    return [event["delta"] for event in events if event["type"].endswith(".delta")]


def only(events, kind):
    (found,) = [event for event in events if event["type"] == f"response.{kind}"]
    return found


# ---- order ---------------------------------------------------------------------------------------------------------


def test_a_text():
    events = streamed("It ", "was", "")
    assert types(events) == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert deltas(events) == ["It ", "was"]
    assert only(events, "output_text.done")["text"] == "It was"
    part = {"type": "output_text", "text": "It was", "annotations": [], "logprobs": []}
    assert only(events, "content_part.done")["part"] == part
    assert only(events, "content_part.added")["part"] == part | {"text": ""}
    item = only(events, "output_item.done")["item"]
    assert (item["role"], item["status"], item["content"]) == ("assistant", "completed", [part])
    added = only(events, "output_item.added")["item"]
    assert added == item | {"status": "in_progress", "content": []}


def test_reasoning_a_text_and_calls():
    events = streamed(*EVERYTHING)
    call = ["output_item.added", *["function_call_arguments.delta"] * 2, "function_call_arguments.done",
            "output_item.done"]  # fmt: skip
    part = ["output_item.added", "content_part.added"], ["content_part.done", "output_item.done"]
    assert types(events) == [
        "created", "in_progress",
        *part[0], "reasoning_text.delta", "reasoning_text.delta", "reasoning_text.done", *part[1],
        *part[0], "output_text.delta", "output_text.delta", "output_text.done", *part[1],
        *call, *call, "completed",
    ]  # fmt: skip
    items = [(item["type"], item["status"]) for item in events[-1]["response"]["output"]]
    assert items == [(kind, "completed") for kind in ("reasoning", "message", "function_call", "function_call")]
    thoughts = events[-1]["response"]["output"][0]
    assert thoughts["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    assert thoughts["summary"] == []


def test_items_are_made_once():
    """Clients that keep what `output_item.done` says find it again in the last event (vllm-project/vllm#56285)."""
    events = streamed(*EVERYTHING)
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == events[-1]["response"]["output"]
    for event in events:
        if "output_index" in event:
            item = done[event["output_index"]]
            assert event.get("item_id", item["id"]) == item["id"]
            assert event.get("item", item)["id"] == item["id"]
    calls = [item["call_id"] for item in done[2:]]
    added = [event["item"].get("call_id") for event in events if event["type"] == "response.output_item.added"]
    assert added == [None, None, *calls]


def test_ids():
    items = streamed(*EVERYTHING)[-1]["response"]["output"]
    ids = [item["id"] for item in items] + [item["call_id"] for item in items[2:]]
    assert len(set(ids)) == len(ids)
    prefixes = [one.split("_")[0] for one in ids]
    assert prefixes == ["rs", "msg", "fc", "fc", "call", "call"]
    other = ResponsesWriter(Identity("f" * 32, 5), ASKED)
    for event in answer_of(*EVERYTHING):
        other.keep(event)
    whole = json.loads(other.whole())
    assert not {item["id"] for item in whole["output"]} & set(ids)
    assert (whole["id"], whole["created_at"]) == ("resp_" + "f" * 32, 5)


def test_an_item_ends_before_the_next_begins():
    events = streamed("a", ("think", "b"), "c", *CALL, "d")
    open_items = 0
    for event in events:
        open_items += {"response.output_item.added": 1, "response.output_item.done": -1}.get(event["type"], 0)
        assert open_items in (0, 1)
        assert open_items or "item_id" not in event
    kinds = [item["type"] for item in events[-1]["response"]["output"]]
    assert kinds == ["message", "reasoning", "message", "function_call", "message"]
    places = [event["output_index"] for event in events if "output_index" in event]
    assert all(later - earlier in (0, 1) for earlier, later in pairwise(places))


def test_no_delta_is_empty():
    events = streamed("", "a", "", ("think", ""), ("call", "f"), ("arguments", ""), ("end",), "")
    assert deltas(events) == ["a"]
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["message", "function_call"]


def test_an_answer_without_anything():
    events = streamed("")
    assert (types(events), events[-1]["response"]["output"]) == (["created", "in_progress", "completed"], [])


# ---- custom tools --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_the_input_of_a_custom_tool(size):
    text = 'echo "a\\b"\n\té 😀'
    arguments = json.dumps({"input": text})
    pieces = [("arguments", arguments[at : at + size]) for at in range(0, len(arguments), size)]
    events = streamed(("call", "shell"), *pieces, ("end",), tools=SHELL)
    assert set(types(events)[3:-3]) == {"custom_tool_call_input.delta"}
    assert "".join(deltas(events)) == only(events, "custom_tool_call_input.done")["input"] == text
    (item,) = events[-1]["response"]["output"]
    assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "shell", text)
    assert item["id"].startswith("ctc_")


def test_tools_of_a_namespace():
    """Codex finds them by both names."""
    tools = {"agents.wait": CalledTool("wait", "agents"), "agents.patch": CalledTool("patch", "agents", custom=True)}
    end = [("arguments", '{"input": "x"}'), ("end",)]
    events = streamed(("call", "agents.wait"), *end, ("call", "agents.patch"), *end, tools=tools)
    items = events[-1]["response"]["output"]
    assert [(item["namespace"], item["name"]) for item in items] == [("agents", "wait"), ("agents", "patch")]
    assert [item["type"] for item in items] == ["function_call", "custom_tool_call"]


@pytest.mark.parametrize("arguments", ['{"patch": "x"}', "[1]", '{"in'])
def test_input_of_another_form_is_given_as_it_is(arguments):
    pieces = [("call", "shell"), ("arguments", arguments), ("end",)]
    events = streamed(*pieces, tools=SHELL)
    assert "".join(deltas(events)) == events[-1]["response"]["output"][0]["input"] == arguments


@pytest.mark.parametrize("size", [1, 2, 100])
def test_what_is_no_escape_is_text(size):
    arguments = r'{"input": "a\qb\n\u12x\\"}'
    pieces = [("arguments", arguments[at : at + size]) for at in range(0, len(arguments), size)]
    events = streamed(("call", "shell"), *pieces, ("end",), tools=SHELL)
    assert events[-1]["response"]["output"][0]["input"] == "a\\qb\n\\u12x\\"


# ---- ends ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", ["It", ("think", "Hm"), ("call", "f")])
def test_an_answer_that_is_cut(piece):
    events = streamed(piece, reason=FinishReason.LENGTH)
    assert types(events)[-1] == "incomplete"
    response = events[-1]["response"]
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert [item["status"] for item in response["output"]] == ["incomplete"]


def test_a_call_that_is_cut_keeps_its_half():
    (item,) = streamed(*CALL[:2], reason=FinishReason.LENGTH)[-1]["response"]["output"]
    assert (item["arguments"], item["status"]) == ('{"city": ', "incomplete")


@pytest.mark.parametrize("more", [[], ["It"], [("think", "Hm")], CALL])
def test_a_call_that_breaks_off_is_incomplete_whatever_follows(more):
    """The model has written something else there; clients must not take its half for a call."""
    response = streamed(*CALL[:2], *more)[-1]["response"]
    assert response["status"] == "completed"
    assert [item["status"] for item in response["output"]] == ["incomplete", *["completed"] * bool(more)]


def test_what_was_complete_before_a_cut_is():
    events = streamed(*CALL, "It", reason=FinishReason.LENGTH)
    assert [item["status"] for item in events[-1]["response"]["output"]] == ["completed", "incomplete"]


@pytest.mark.parametrize("reason", [FinishReason.EOS, FinishReason.STOP])
def test_usage(reason):
    response = streamed(*EVERYTHING, reason=reason)[-1]["response"]
    assert response["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": len(EVERYTHING),
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 5 + len(EVERYTHING),
    }
    assert (response["status"], response["incomplete_details"], response["error"]) == ("completed", None, None)


def test_a_token_of_reasoning_counts_once():
    one = token(1, FinishReason.EOS)
    events = [Begin(0, 5, 0), Reasoning(0, one, 0, "a"), Reasoning(0, one, 1, "b"), Text(0, one, 2, "c"),
              End(0, one, 3, FinishReason.EOS)]  # fmt: skip
    _, whole = written(events)
    assert whole["usage"]["output_tokens_details"] == {"reasoning_tokens": 1}


def test_the_answer_repeats_its_request():
    response = streamed("x")[-1]["response"]
    assert response | REPEATED == response


FAILURES = [
    (ApiError(500, "the model failed", kind=SERVER), "server_error"),
    (ApiError(503, "the server is shutting down", kind=OVERLOADED), "server_error"),
    (ApiError(429, "full", kind=OVERLOADED), "rate_limit_exceeded"),
    (ApiError(400, "no", parameter="input"), "invalid_prompt"),
]


@pytest.mark.parametrize(("error", "code"), FAILURES)
def test_a_failure_ends_the_stream(error, code):
    writer = ResponsesWriter(IDENTITY, ASKED)
    *begun, _ = answer_of("a", ("think", "b"))
    events = parsed(b"".join([*map(writer.write, begun), writer.failure(error)]))
    assert types(events)[-1] == "failed"
    response = events[-1]["response"]
    Response.model_validate(response)
    assert (response["status"], response["error"]) == ("failed", {"code": code, "message": error.message})
    assert [item["type"] for item in response["output"]] == ["message"]  # what was complete


def test_a_failure_before_the_first_token():
    """After a ping, say: clients take no other event than `response.created` for the first."""
    stream = ResponsesWriter(IDENTITY, ASKED).failure(ApiError(500, "the model failed", kind=SERVER))
    assert types(parsed(stream)) == ["created", "in_progress", "failed"]


def test_a_code_of_its_own():
    """By which Codex recognizes a prompt that is too long."""
    stream = ResponsesWriter(IDENTITY, ASKED).failure(ApiError(400, "long", code="context_length_exceeded"))
    assert b'"code":"context_length_exceeded"' in stream


# ---- log-probabilities ---------------------------------------------------------------------------------------------


def test_log_probabilities():
    """A token that completes no character comes with the next one that does."""
    names = load_tokenizer(DEMO_DIR)
    one, two, three = (token(index, logprob=-index / 2, top=((7, -0.25),)) for index in (1, 2, 3))
    last = token(4, FinishReason.EOS)
    events = [Begin(0, 5, 0), Text(0, one, 0, "It"), Text(0, two, 0, ""), Text(0, three, 0, "é"),
              Text(0, last, 0, ""), End(0, last, 1, FinishReason.EOS)]  # fmt: skip
    stream, whole = written(events, names=names)
    found = parsed(stream)
    per_delta = [event["logprobs"] for event in found if event["type"] == "response.output_text.delta"]
    assert [[one["logprob"] for one in logprobs] for logprobs in per_delta] == [[-0.5], [-1.0, -1.5]]
    (part,) = whole["output"][0]["content"]
    assert part["logprobs"] == [one for logprobs in per_delta for one in logprobs]
    assert only(found, "output_text.done")["logprobs"] == part["logprobs"]
    best = part["logprobs"][0]["top_logprobs"]
    assert best == [{"token": names.token_text(7), "logprob": -0.25, "bytes": list(names.token_bytes(7))}]
