"""Items of an answer in the form of OpenAI's /v1/responses, each with the events of its life.

An item is made once: what `done` returns stands in its last event, in the last event of the stream, and in the answer
that is not streamed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import orjson

from pipeline.front.api.chat.text_input import TextInput

Fields = dict[str, Any]
Named = tuple[str, Fields]
"""An event's type, and its members but for that and the sequence number."""

IN_PROGRESS: Final = "in_progress"
_NAMED: Final = b'event: %b\ndata: {"type":"%b","sequence_number":%%d,'


def event_form(name: str) -> bytes:
    """How an event begins; with a placeholder for its number."""
    kind = name.encode()
    return _NAMED % (kind, kind)


class OutputItem(ABC):
    """`seed`: of the answer's ids; `index`: of the item in the answer."""

    PREFIX: ClassVar[str]
    EVENT: ClassVar[str]
    """Of its id; of the types of events with its text, before `.delta` and `.done`."""

    def __init__(self, seed: str, index: int) -> None:
        self._id, self._index = f"{self.PREFIX}_{seed}{index:02x}", index
        self._texts: list[str] = []
        place = orjson.dumps(self._place)[1:-1]
        self._delta = event_form(f"{self.EVENT}.delta") + place + b',"delta":%b%b}\n\n'

    @property
    def _place(self) -> Fields:
        return {"item_id": self._id, "output_index": self._index}

    @property
    def _text(self) -> str:
        return "".join(self._texts)

    @abstractmethod
    def _form(self, status: str) -> Fields:
        """The item, with what it has so far; without its content while it is in progress."""

    def begin(self) -> Iterator[Named]:
        yield "response.output_item.added", {"output_index": self._index, "item": self._form(IN_PROGRESS)}

    def delta(self, number: int, text: str, more: bytes = b"") -> bytes:
        """An event with a piece, which is not empty; `more`: further members."""
        self._texts.append(text)
        return self._delta % (number, orjson.dumps(text), more)

    def rest(self) -> str:
        """A last piece, known only at the end; it is still to be written."""
        return ""

    def end(self) -> Iterator[Named]:
        """Of its text; `done` follows."""
        yield from ()

    def done(self, status: str) -> bytes:
        """The item as JSON."""
        return orjson.dumps(self._form(status))

    def last(self, item: bytes) -> Named:
        return "response.output_item.done", {"output_index": self._index, "item": orjson.Fragment(item)}


class _WithPart(OutputItem):
    """Its text is in a part, the only one."""

    @property
    def _place(self) -> Fields:
        return {**super()._place, "content_index": 0}

    @abstractmethod
    def _part(self) -> Fields: ...

    def _beside(self) -> Fields:
        """What else the last event of its text has."""
        return {}

    def begin(self) -> Iterator[Named]:
        yield from super().begin()
        yield "response.content_part.added", {**self._place, "part": self._part()}

    def end(self) -> Iterator[Named]:
        yield f"{self.EVENT}.done", {**self._place, "text": self._text, **self._beside()}
        yield "response.content_part.done", {**self._place, "part": self._part()}

    def _content(self, status: str) -> list[Fields]:
        return [] if status == IN_PROGRESS else [self._part()]


class Message(_WithPart):
    PREFIX, EVENT = "msg", "response.output_text"

    def __init__(self, seed: str, index: int) -> None:
        super().__init__(seed, index)
        self.logprobs: list[Fields] = []

    def _part(self) -> Fields:
        return {"type": "output_text", "text": self._text, "annotations": [], **self._beside()}

    def _beside(self) -> Fields:
        return {"logprobs": self.logprobs}

    def _form(self, status: str) -> Fields:
        heading = {"id": self._id, "type": "message", "status": status, "role": "assistant"}
        return {**heading, "content": self._content(status)}


class Thoughts(_WithPart):
    PREFIX, EVENT = "rs", "response.reasoning_text"

    def _part(self) -> Fields:
        return {"type": "reasoning_text", "text": self._text}

    def _form(self, status: str) -> Fields:
        heading = {"id": self._id, "type": "reasoning", "status": status, "summary": []}
        return {**heading, "content": self._content(status), "encrypted_content": None}


@dataclass(frozen=True, slots=True)
class CalledTool:
    """As the client knows it. `custom`: it takes a text."""

    name: str
    namespace: str | None = None
    custom: bool = False


class FunctionCall(OutputItem):
    PREFIX, EVENT = "fc", "response.function_call_arguments"
    KIND: ClassVar[str] = "function_call"
    TEXT: ClassVar[str] = "arguments"

    def __init__(self, seed: str, index: int, call_id: str, tool: CalledTool) -> None:
        super().__init__(seed, index)
        self._call_id, self._tool = call_id, tool

    def read(self, arguments: str) -> str:
        """The piece of its text that a piece of its arguments brings, if any."""
        return arguments

    def end(self) -> Iterator[Named]:
        yield f"{self.EVENT}.done", {**self._place, "name": self._tool.name, self.TEXT: self._text}

    def _form(self, status: str) -> Fields:
        heading = {"id": self._id, "type": self.KIND, "status": status, "call_id": self._call_id}
        inside = {} if self._tool.namespace is None else {"namespace": self._tool.namespace}
        return {**heading, **inside, "name": self._tool.name, self.TEXT: self._text}


class CustomCall(FunctionCall):
    PREFIX, EVENT = "ctc", "response.custom_tool_call_input"
    KIND = "custom_tool_call"
    TEXT = "input"

    def __init__(self, seed: str, index: int, call_id: str, tool: CalledTool) -> None:
        super().__init__(seed, index, call_id, tool)
        self._input = TextInput()

    def read(self, arguments: str) -> str:
        return self._input.push(arguments)

    def rest(self) -> str:
        return self._input.finish()
