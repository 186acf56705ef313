"""Answers from events that a test writes down, and what official packages say of them."""

from __future__ import annotations

import json

import orjson
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from pipeline.front.api.responses.answer import ResponsesWriter
from pipeline.front.delivery.job import (
    Begin,
    CallArguments,
    CallBegin,
    CallEnd,
    End,
    Identity,
    Reasoning,
    Text,
)
from pipeline.wire.delta import Delta, FinishReason

IDENTITY = Identity("0123456789abcdef" * 2, 1795890551)
KINDS = {"text": Text, "think": Reasoning, "call": CallBegin, "arguments": CallArguments, "end": CallEnd}
EVENTS = TypeAdapter(ResponseStreamEvent)
REPEATED = {
    "model": "tiny", "instructions": None, "metadata": {"a": "b"}, "parallel_tool_calls": True, "store": False,
    "temperature": 0.5, "top_p": 1.0, "tool_choice": "auto", "tools": [], "text": {"format": {"type": "text"}},
}  # fmt: skip
ASKED = orjson.dumps(REPEATED)


def token(index, reason=FinishReason.NONE, **more):
    return Delta(1, 0, index, 100 + index, more.pop("logprob", -0.5), reason, more.pop("text", ""), **more)


def answer_of(*pieces, reason=FinishReason.EOS):
    """Events of an answer, a token each: a text, ("think", text), ("call", name), ("arguments", piece), ("end",)."""
    events, call = [Begin(0, 5, 2)], -1
    for index, piece in enumerate(pieces, 1):
        kind, *rest = ("text", piece) if isinstance(piece, str) else piece
        call += kind == "call"
        made, place = KINDS[kind], (0, token(index, text="".join(rest)), 0)
        events.append(made(*place, *([] if made in (Text, Reasoning) else [call]), *rest))
    return [*events, End(0, token(len(pieces), reason), 1, reason)]


def written(events, **options):
    """The stream's bytes, and the answer that is not streamed."""
    writer, other = (ResponsesWriter(IDENTITY, ASKED, **options) for _ in range(2))
    stream = b"".join([*map(writer.write, events), writer.tail()])
    for event in events:
        other.keep(event)
    return stream, json.loads(other.whole())


def read(stream):
    """Events of a stream, each of which is named and numbered."""
    events = []
    *blocks, rest = stream.decode().split("\n\n")
    assert not rest
    for number, block in enumerate(blocks):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert (name, event["sequence_number"]) == (f"event: {event['type']}", number)
        events.append(event)
    return events


def parsed(stream):
    """The same; each is one that OpenAI's package knows."""
    events = read(stream)
    for event in events:
        assert EVENTS.validate_python(event).type == event["type"]
    return events


def streamed(*pieces, reason=FinishReason.EOS, **options):
    """Events of such an answer; the last has the very object that is the answer which is not streamed."""
    stream, whole = written(answer_of(*pieces, reason=reason), **options)
    events = parsed(stream)
    Response.model_validate(whole)
    assert events[-1]["response"] == whole
    return events


def types(events):
    return [event["type"].removeprefix("response.") for event in events]
