"""Answers in the form of Anthropic's /v1/messages: a message of blocks, or events that bring them one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

import orjson

from pipeline.front.api.anthropic.errors import error_object
from pipeline.front.api.chat.messages import call_id
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
from pipeline.wire.delta import FinishReason

Fields = dict[str, Any]

SIGNATURE: Final = "unsigned"
"""Of thinking: clients send it back with the block, and some drop a block that has none. Nothing depends on it."""

INVALID: Final = "INVALID_JSON"
"""The member that has a call's arguments where they are no JSON object, as Anthropic's documentation advises."""

_PING: Final = b'event: ping\ndata: {"type":"ping"}\n\n'


@dataclass(frozen=True, slots=True)
class Asked:
    """What an answer depends on besides its events. `thinking`: the client wants to see it."""

    model: str
    max_tokens: int
    stops: tuple[str, ...] = ()
    thinking: bool = True


class _Block:
    """A part of the message, with its index. `write` gives the event that brings a piece, which is not empty."""

    KIND: ClassVar[str]
    DELTA: ClassVar[str]
    """Of the event with a piece: type, and the member that has it."""
    PIECE: ClassVar[str]

    def __init__(self, index: int) -> None:
        self.index = index
        self._pieces: list[str] = []
        self._delta = _delta(index, self.DELTA, self.PIECE)

    def write(self, piece: str) -> bytes:
        self._pieces.append(piece)
        return self._delta + orjson.dumps(piece) + b"}}\n\n"

    @property
    def _all(self) -> str:
        return "".join(self._pieces)

    def form(self, text: str) -> Fields:
        """The block, with this text."""
        return {"type": self.KIND, self.KIND: text}

    def begin(self) -> bytes:
        return _event("content_block_start", {"index": self.index, "content_block": self.form("")})

    def end(self) -> bytes:
        return _event("content_block_stop", {"index": self.index})

    def whole(self) -> Fields:
        return self.form(self._all)


class _TextBlock(_Block):
    KIND, DELTA, PIECE = "text", "text_delta", "text"


class _Thinking(_Block):
    KIND, DELTA, PIECE = "thinking", "thinking_delta", "thinking"

    def form(self, text: str) -> Fields:
        return {**super().form(text), "signature": SIGNATURE if text else ""}

    def end(self) -> bytes:
        return _delta(self.index, "signature_delta", "signature") + b'"%b"}}\n\n' % SIGNATURE.encode() + super().end()


class _ToolUse(_Block):
    KIND, DELTA, PIECE = "tool_use", "input_json_delta", "partial_json"

    def __init__(self, index: int, tool_id: str, name: str) -> None:
        super().__init__(index)
        self._heading = {"type": self.KIND, "id": tool_id, "name": name}

    def form(self, text: str) -> Fields:
        try:
            found = orjson.loads(text) if text else {}
        except orjson.JSONDecodeError:
            found = None
        return {**self._heading, "input": found if isinstance(found, dict) else {INVALID: text}}


def _event(kind: str, fields: Fields) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


def _delta(index: int, kind: str, member: str) -> bytes:
    """How an event begins that brings a piece of a block."""
    heading = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":'
    return heading % (index, kind.encode(), member.encode())


class MessagesWriter:
    """Of one answer. Blocks never overlap, and none is empty but a call without arguments."""

    content_type = b"text/event-stream; charset=utf-8"
    END: ClassVar[bytes] = b"\n\n"
    PING: ClassVar[bytes] = _PING

    def __init__(self, identity: Identity, asked: Asked) -> None:
        self._seed, self._asked = identity.seed, asked
        self._prompt = Begin(0, 0, 0)
        self._blocks: list[_Block] = []
        self._open: _Block | None = None
        self._last: End | None = None
        self._called = False  # the last call is complete

    @property
    def choices(self) -> tuple[MessagesWriter]:
        """Exactly one."""
        return (self,)

    def write(self, event: Event) -> bytes:
        match event:
            case Text():
                return self._piece(_TextBlock, event.text)
            case Reasoning():
                return self._piece(_Thinking, event.text if self._asked.thinking else "")
            case CallArguments():
                return self._open.write(event.text) if self._open is not None and event.text else b""
            case CallBegin():
                self._called = False
                return self._begin(_ToolUse(len(self._blocks), self._tool_id(event), event.name))
            case CallEnd() | End():
                self._called = self._called or isinstance(event, CallEnd)
                self._last = event if isinstance(event, End) else None
                return self._close()
            case Begin():
                self._prompt = event
                return _event("message_start", {"message": self._message([], 0)}) + _PING
        raise unwritable(self, event)

    def _tool_id(self, event: CallBegin) -> str:
        return call_id(self._seed, event.choice, event.call, "toolu_")

    def keep(self, event: Event) -> None:
        """Blocks come about as in a stream."""
        self.write(event)

    def _piece(self, kind: type[_Block], text: str) -> bytes:
        if not text:
            return b""
        before = b"" if type(self._open) is kind else self._begin(kind(len(self._blocks)))
        assert self._open is not None
        return before + self._open.write(text)

    def _begin(self, block: _Block) -> bytes:
        before = self._close()
        self._blocks.append(block)
        self._open = block
        return before + block.begin()

    def _close(self) -> bytes:
        block, self._open = self._open, None
        return b"" if block is None else block.end()

    # ---- the message around them ----------------------------------------------------------------------------------

    def _message(self, content: list[Fields], tokens: int) -> Fields:
        return {
            "id": f"msg_{self._seed}",
            "type": "message",
            "role": "assistant",
            "model": self._asked.model,
            "content": content,
            **self._reason(),
            "usage": self._usage(tokens),
        }

    def _usage(self, tokens: int) -> Fields:
        """What was found in the cache does not count as input, as at Anthropic."""
        cached = self._prompt.cached_tokens
        return {
            "input_tokens": self._prompt.prompt_tokens - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": tokens,
        }

    def _reason(self) -> Fields:
        """Why it ended."""
        last, stops = self._last, self._asked.stops
        if last is None:
            return {"stop_reason": None, "stop_sequence": None}
        if last.reason is FinishReason.LENGTH:
            limited = last.token.index >= self._asked.max_tokens
            return {
                "stop_reason": "max_tokens" if limited else "model_context_window_exceeded",
                "stop_sequence": None,
            }
        if last.token.stop >= 0:
            return {"stop_reason": "stop_sequence", "stop_sequence": stops[last.token.stop]}
        return {"stop_reason": "tool_use" if self._called else "end_turn", "stop_sequence": None}

    @property
    def _tokens(self) -> int:
        return 0 if self._last is None else self._last.token.index

    def tail(self) -> bytes:
        ended = _event("message_delta", {"delta": self._reason(), "usage": self._usage(self._tokens)})
        return ended + _event("message_stop", {})

    def whole(self) -> bytes:
        return orjson.dumps(self._message([block.whole() for block in self._blocks], self._tokens))

    def failure(self, error: ApiError) -> bytes:
        return _event("error", {"error": error_object(error)})

    def translate(self, error: ApiError) -> ApiError:
        """There are no names of parameters beside the message."""
        return error
