"""Answers in the form of OpenAI's /v1/responses: an object, or numbered events, the last of which has that object."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import ClassVar, Final, TypeVar

import orjson

from model.tokenizer import Vocabulary
from pipeline.front.api.chat.messages import call_id
from pipeline.front.api.openai.answer import named_by_client
from pipeline.front.api.openai.chat_answer import named_tokens
from pipeline.front.api.responses.items import (
    IN_PROGRESS,
    CalledTool,
    CustomCall,
    FunctionCall,
    Message,
    Named,
    OutputItem,
    Thoughts,
    event_form,
)
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
    unwritable,
)
from pipeline.front.http.errors import ApiError
from pipeline.wire.delta import Delta, FinishReason

T = TypeVar("T", Message, Thoughts)

QUEUED: Final = "queued"
COMPLETED: Final = "completed"
INCOMPLETE: Final = "incomplete"
FAILED: Final = "failed"
_NO_LOGPROBS: Final = b',"logprobs":[]'
_TOO_LONG: Final = {"reason": "max_output_tokens"}
_USAGE: Final = (
    b'{"input_tokens":%d,"input_tokens_details":{"cached_tokens":%d,"cache_write_tokens":0},'
    b'"output_tokens":%d,"output_tokens_details":{"reasoning_tokens":%d},"total_tokens":%d}'
)


class ResponsesWriter:
    """`asked`: what the answer repeats of its request, a JSON object. `tools`: by the names that the model has for
    them. `names`: of tokens, if log-probabilities are wanted. `renamed`: our name of a parameter → the client's."""

    content_type = b"text/event-stream; charset=utf-8"
    END: ClassVar[bytes] = b"\n\n"
    PING: ClassVar[bytes] = b": ping\n\n"

    def __init__(
        self,
        identity: Identity,
        asked: bytes,
        *,
        tools: Mapping[str, CalledTool] | None = None,
        names: Vocabulary | None = None,
        renamed: Mapping[str, str] | None = None,
    ) -> None:
        self._seed, self._tools, self._names, self._renamed = identity.seed, tools or {}, names, renamed or {}
        heading = {"id": f"resp_{identity.seed}", "object": "response", "created_at": identity.created}
        self._heading, self._asked = orjson.dumps(heading)[:-1], asked[1:]
        self._number = 0  # of the next event
        self._begin: Begin | None = None
        self._last: End | None = None
        self._item: OutputItem | None = None  # the one that is being written
        self._output: list[bytes] = []  # items that are complete
        self._unsaid: list[Delta] = []  # tokens without a text of their own, whose log-probabilities are due
        self._reasoning_tokens = self._reasoning_index = 0

    @property
    def choices(self) -> tuple[ResponsesWriter]:
        """Exactly one."""
        return (self,)

    # ---- events of the text ----------------------------------------------------------------------------------------

    def write(self, event: Event) -> bytes:
        match event:
            case Text():
                return self._text(event)
            case Reasoning():
                return self._reasoning(event)
            case CallBegin() | CallArguments() | CallEnd():
                return self._called(event)
            case Begin():
                self._begin = event
                return self._opening()
            case End():
                self._last = event
                return self._close()
        raise unwritable(self, event)

    def keep(self, event: Event) -> None:
        """Items come about as in a stream."""
        self.write(event)

    def _text(self, event: Text) -> bytes:
        if self._names is not None:
            self._unsaid.append(event.token)
        if not event.text:
            return b""
        item, before = self._within(Message)
        return before + item.delta(self._next(), event.text, self._logprobs(item))

    def _logprobs(self, message: Message) -> bytes:
        """Of the tokens since the last piece, as members of an event."""
        if self._names is None:
            return _NO_LOGPROBS
        named, self._unsaid = named_tokens(self._names, self._unsaid), []
        message.logprobs += named
        return b',"logprobs":%b' % orjson.dumps(named)

    def _reasoning(self, event: Reasoning) -> bytes:
        self._unsaid = []
        if event.token.index != self._reasoning_index:
            self._reasoning_index, self._reasoning_tokens = event.token.index, self._reasoning_tokens + 1
        if not event.text:
            return b""
        item, before = self._within(Thoughts)
        return before + item.delta(self._next(), event.text)

    def _called(self, event: CallBegin | CallArguments | CallEnd) -> bytes:
        match event:
            case CallBegin():
                return self._call(event)
            case CallArguments():
                return self._arguments(event)
        return self._close(called=True)

    def _call(self, event: CallBegin) -> bytes:
        self._unsaid = []
        before = self._close()
        tool = self._tools.get(event.name) or CalledTool(event.name)
        kind = CustomCall if tool.custom else FunctionCall
        number = call_id(self._seed, event.choice, event.call)
        return before + self._open(kind(self._seed, len(self._output), number, tool))

    def _arguments(self, event: CallArguments) -> bytes:
        item = self._item
        assert isinstance(item, FunctionCall)  # its CallBegin came before
        text = item.read(event.text)
        return item.delta(self._next(), text) if text else b""

    # ---- items -----------------------------------------------------------------------------------------------------

    def _within(self, kind: type[T]) -> tuple[T, bytes]:
        """The item of this kind that is being written, or a new one; and the events before what is added to it."""
        if isinstance(self._item, kind):
            return self._item, b""
        before = self._close()
        item = kind(self._seed, len(self._output))
        return item, before + self._open(item)

    def _open(self, item: OutputItem) -> bytes:
        self._item = item
        return self._events(*item.begin())

    def _close(self, *, called: bool = False) -> bytes:
        """The item that is being written, if there is one. `called`: a call, whose end has come; without it one is
        incomplete, whatever follows."""
        item, self._item = self._item, None
        if item is None:
            return b""
        status = INCOMPLETE if isinstance(item, FunctionCall) and not called else self._status
        rest = item.rest()
        before = item.delta(self._next(), rest) if rest else b""
        made = item.done(status)
        self._output.append(made)
        return before + self._events(*item.end(), item.last(made))

    def _next(self) -> int:
        self._number += 1
        return self._number - 1

    def _events(self, *events: Named) -> bytes:
        return b"".join(
            [event_form(name) % self._next() + orjson.dumps(fields)[1:] + b"\n\n" for name, fields in events]
        )

    # ---- the answer around them ------------------------------------------------------------------------------------

    def _opening(self) -> bytes:
        response = {"response": orjson.Fragment(self._response(IN_PROGRESS))}
        return self._events(("response.created", response), ("response.in_progress", response))

    def queued(self) -> bytes:
        """What stands for it until it is complete."""
        return self._response(QUEUED)

    def _response(self, status: str, error: dict[str, str] | None = None) -> bytes:
        """The object that stands for the answer."""
        state = {
            "status": status,
            "error": error,
            "incomplete_details": _TOO_LONG if status == INCOMPLETE else None,
            "output": [orjson.Fragment(item) for item in self._output],
            "usage": self._usage(),
        }
        return self._heading + b"," + orjson.dumps(state)[1:-1] + b"," + self._asked

    def _usage(self) -> orjson.Fragment | None:
        """None as long as it goes on."""
        if self._begin is None or self._last is None:
            return None
        given, made = self._begin.prompt_tokens, self._last.token.index
        cached = self._begin.cached_tokens
        return orjson.Fragment(_USAGE % (given, cached, made, self._reasoning_tokens, given + made))

    @property
    def _status(self) -> str:
        """Of the answer, as far as it is known."""
        return INCOMPLETE if self._last is not None and self._last.reason is FinishReason.LENGTH else COMPLETED

    def tail(self) -> bytes:
        status = self._status
        return self._events((f"response.{status}", {"response": orjson.Fragment(self._response(status))}))

    def whole(self) -> bytes:
        return self._response(self._status)

    def failure(self, error: ApiError) -> bytes:
        """Clients take no other event for the first one, not even this."""
        before = self._opening() if self._begin is None else b""
        told = {"code": error.code or _code(error.status), "message": error.message}
        return before + self._events(("response.failed", {"response": orjson.Fragment(self._response(FAILED, told))}))

    def translate(self, error: ApiError) -> ApiError:
        return named_by_client(error, self._renamed)


def _code(status: int) -> str:
    """One of those that OpenAI's clients know."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_exceeded"
    return "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_prompt"
