"""Answers in Ollama's form: one JSON object, or one per line; the last of them has the counts and the times."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import orjson

from model.tokenizer import Vocabulary
from pipeline.front.api.openai.chat_answer import named_tokens
from pipeline.front.delivery.job import (
    Begin,
    CallArguments,
    CallBegin,
    CallEnd,
    End,
    Event,
    Identity,
    Reasoning,
    Text,
    Times,
    TokenEvent,
)
from pipeline.front.http.errors import ApiError
from pipeline.wire.delta import Delta, FinishReason


@dataclass(frozen=True, slots=True)
class Place:
    """Where a text stands in an answer, between what is before and behind it, with other members beside it."""

    before: bytes
    after: bytes

    def hold(self, text: bytes, more: dict[str, Any]) -> bytes:
        beside = b"," + orjson.dumps(more)[1:-1] if more else b""
        return self.before + text + beside + self.after


CHAT: Final = Place(b'"message":{"role":"assistant","content":', b"}")
GENERATE: Final = Place(b'"response":', b"")
"""In the answers of /api/chat and /api/generate."""

_REASONS = {FinishReason.LENGTH: b"length", FinishReason.EOS: b"stop", FinishReason.STOP: b"stop"}
_CONTINUES = FinishReason.NONE
_LAST = (
    b',"done":true,"done_reason":"%b","total_duration":%d,"load_duration":0,"prompt_eval_count":%d,'
    b'"prompt_eval_duration":%d,"eval_count":%d,"eval_duration":%d'
)


def ollama_error(error: ApiError) -> bytes:
    """The JSON form of an error, which has nothing but a message."""
    return orjson.dumps({"error": error.message})


def ollama_refusal(error: ApiError, request_id: str) -> tuple[int, bytes]:
    """See `ErrorForm`."""
    return error.status, ollama_error(error)


def timestamp(seconds: int) -> str:
    """Of Unix time."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(slots=True)
class Call:
    """`complete`: else it is no part of the answer, as in a stream."""

    name: str
    arguments: str = ""
    complete: bool = False

    def form(self) -> dict[str, Any]:
        """With arguments as values; those that the model has not written as an object are told as a text."""
        try:
            values = orjson.loads(self.arguments)
        except orjson.JSONDecodeError:
            values = None
        given = values if isinstance(values, dict) else {"text": self.arguments}
        return {"function": {"name": self.name, "arguments": given}}


class OllamaWriter:
    """`place`: CHAT or GENERATE. `names`: of tokens, if log-probabilities are wanted. An answer for which nothing was
    generated says that the model is loaded. A call is written as a whole."""

    content_type = b"application/x-ndjson"
    END: ClassVar[bytes] = b"\n"
    PING: ClassVar[bytes] = b""

    def __init__(self, identity: Identity, model: str, place: Place, names: Vocabulary | None) -> None:
        heading = orjson.dumps({"model": model, "created_at": timestamp(identity.created)})[:-1] + b","
        self._heading, self._place, self._names = heading, place, names
        self._plain = heading.replace(b"%", b"%%") + place.before + b"%b" + place.after + b',"done":false}\n'
        self._prompt_tokens = self._tokens = 0
        self._reason = b"load"
        self._times = Times(0, 0, 0)
        self._texts: list[str] = []
        self._kept: list[Delta] = []
        self._thoughts: list[str] = []
        self._calls: list[Call] = []

    @property
    def choices(self) -> tuple[OllamaWriter]:
        """Exactly one."""
        return (self,)

    def measured(self, times: Times) -> None:
        """Comes before `tail` or `whole`."""
        self._times = times

    def write(self, event: Event) -> bytes:
        if type(event) is Text and self._names is None:
            if not event.text and event.token.reason is not _CONTINUES:
                return b""  # the last token has no text, such as EOS
            return self._plain % orjson.dumps(event.text)
        return self._line(event, self._note(event))

    def _line(self, event: Event, more: dict[str, Any]) -> bytes:
        text, new = event.text if isinstance(event, Text) else "", self._new(event)
        told = b',"logprobs":%b' % orjson.dumps(named_tokens(self._names, new)) if self._names and new else b""
        if not (more or told or text):
            return b""
        return self._heading + self._place.hold(orjson.dumps(text), more) + b',"done":false%b}\n' % told

    def keep(self, event: Event) -> None:
        match event:
            case Text():
                self._texts.append(event.text)
            case Reasoning():
                self._thoughts.append(event.text)
            case _:
                self._note(event)
        self._kept += self._new(event)

    def _new(self, event: Event) -> list[Delta]:
        """Tokens whose log-probabilities come with this event."""
        if self._names is None or not isinstance(event, TokenEvent) or isinstance(event, End) or event.part:
            return []
        return [event.token]

    def _note(self, event: Event) -> dict[str, Any]:
        """What is no text, and what comes of it beside one."""
        match event:
            case Begin():
                self._prompt_tokens = event.prompt_tokens
            case End():
                self._reason, self._tokens = _REASONS.get(event.reason, b""), event.token.index
            case Reasoning():
                return {"thinking": event.text}
            case CallBegin():
                self._calls.append(Call(event.name))
            case CallArguments():
                self._calls[event.call].arguments += event.text
            case CallEnd():
                self._calls[event.call].complete = True
                return {"tool_calls": [self._calls[event.call].form()]}
        return {}

    def tail(self) -> bytes:
        return self._last("", {}) + b"}\n"

    def whole(self) -> bytes:
        thoughts, calls = "".join(self._thoughts), [call.form() for call in self._calls if call.complete]
        more = ({"thinking": thoughts} if thoughts else {}) | ({"tool_calls": calls} if calls else {})
        last = self._last("".join(self._texts), more)
        if self._names is None:
            return last + b"}"
        return last + b',"logprobs":%b}' % orjson.dumps(named_tokens(self._names, self._kept))

    def _last(self, text: str, more: dict[str, Any]) -> bytes:
        times, form = self._times, self._heading + self._place.hold(orjson.dumps(text), more)
        counts = (self._prompt_tokens, times.prompt_ns, self._tokens, times.output_ns)
        return form + _LAST % (self._reason, times.total_ns, *counts)

    def failure(self, error: ApiError) -> bytes:
        return ollama_error(error) + b"\n"

    def translate(self, error: ApiError) -> ApiError:
        """There are no names of parameters beside the message."""
        return error
