"""The input of OpenAI's /v1/responses: items, which become the messages of a chat."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Annotated, Any, ClassVar, Final

from pydantic import ConfigDict, FailFast, Field

from model.tokenizer import Message
from pipeline.front.api.body import Body
from pipeline.front.api.chat.messages import assistant, call, result
from pipeline.front.api.fields import also, given, only
from pipeline.front.api.one_of import OneOf, TextOr
from pipeline.front.api.openai.tools import Arguments
from pipeline.front.api.responses.tools import full_name

_TEXTS: Final = ("input_text", "output_text", "text")
_LABELS: Final = "id status phase created_by caller async"


class TextOfMessage(Body):
    """Other members, such as annotations, are ignored."""

    model_config = ConfigDict(extra="ignore")

    type: Annotated[str, only(*_TEXTS)]
    text: str


class RefusalOfMessage(Body):
    model_config = ConfigDict(extra="ignore")

    type: Annotated[str, only("refusal")]
    refusal: str

    @property
    def text(self) -> str:
        return self.refusal


def _joined(parts: Sequence[Any]) -> str:
    return "\n".join([part.text for part in parts])


_PART: Final = OneOf(
    dict.fromkeys(_TEXTS, TextOfMessage) | {"refusal": RefusalOfMessage}, other="the model reads text only"
)
_PARTS = Annotated[list[Annotated[TextOfMessage | RefusalOfMessage, _PART]], FailFast()]
Content = Annotated[str, TextOr(_PARTS, str, _joined, "a string or a list of text parts")]
CallId = Annotated[str, Field(min_length=1)]


class Item(Body):
    PLACE: ClassVar[str] = "input[]."


@also({}, labels=_LABELS)
class MessageItem(Item):
    type: Annotated[str, only("message")] = "message"
    role: Annotated[str, only("user", "assistant", "system", "developer")]
    content: Content


class HiddenText(Body):
    """What one agent of Codex tells another, which a server may have encrypted: here it is text."""

    model_config = ConfigDict(extra="ignore")

    type: Annotated[str, only("encrypted_content")]
    encrypted_content: str

    @property
    def text(self) -> str:
        return self.encrypted_content


_AGENT_PART: Final = OneOf({"input_text": TextOfMessage, "encrypted_content": HiddenText})
_AGENT_PARTS = Annotated[list[Annotated[TextOfMessage | HiddenText, _AGENT_PART]], FailFast()]


@also({}, labels=f"{_LABELS} author recipient")
class AgentMessageItem(Item):
    type: Annotated[str, only("agent_message")]
    content: Annotated[str, TextOr(_AGENT_PARTS, str, _joined, "a string or a list of parts")]


class ReasoningText(Body):
    model_config = ConfigDict(extra="ignore")

    type: Annotated[str, only("reasoning_text", "text")]
    text: str


@also({}, labels=f"{_LABELS} summary encrypted_content")
class ReasoningItem(Item):
    type: Annotated[str, only("reasoning")]
    content: Annotated[list[ReasoningText], FailFast()] = given(
        [], "What was written before an answer, if the client knows it."
    )


@also({}, labels=_LABELS)
class FunctionCallItem(Item):
    type: Annotated[str, only("function_call")]
    call_id: CallId
    name: str = Field(min_length=1)
    namespace: str | None = None
    arguments: Arguments = given("", "JSON.")


@also({}, labels=_LABELS)
class CustomCallItem(Item):
    type: Annotated[str, only("custom_tool_call")]
    call_id: CallId
    name: str = Field(min_length=1)
    namespace: str | None = None
    input: str = ""

    @property
    def arguments(self) -> dict[str, Any]:
        return {"input": self.input}


@also({}, labels=f"{_LABELS} name namespace")
class OutputItem(Item):
    type: Annotated[str, only("function_call_output", "custom_tool_call_output")]
    call_id: CallId
    output: Content


KINDS: Final[dict[str, type[Body]]] = {
    "message": MessageItem,
    "function_call": FunctionCallItem,
    "function_call_output": OutputItem,
    "custom_tool_call": CustomCallItem,
    "custom_tool_call_output": OutputItem,
    "reasoning": ReasoningItem,
    "agent_message": AgentMessageItem,
}
_STORED: Final = "answers are not stored here; send the item itself"
_ITEM: Final = OneOf(
    KINDS,
    usual=("message", "role"),
    refused={"item_reference": _STORED},
    other="items of tools that the server itself would run are not supported",
)
AnyItem = MessageItem | ReasoningItem | FunctionCallItem | CustomCallItem | OutputItem | AgentMessageItem
_ITEMS = Annotated[list[Annotated[AnyItem, _ITEM]], FailFast(), Field(min_length=1)]
_INPUT_IS: Final = "a string or a list of at least one item, such as a message with a role and a content"


def _of_text(text: str) -> tuple[AnyItem, ...]:
    return (MessageItem.model_construct(role="user", content=text),)


Input = Annotated[tuple[AnyItem, ...], TextOr(_ITEMS, _of_text, tuple, _INPUT_IS)]


# ---- as messages ---------------------------------------------------------------------------------------------------


class _Turn:
    """What an assistant has written in a row: reasoning, a text and calls are one message, as templates want it."""

    def __init__(self) -> None:
        self._reasoning: list[str] = []
        self._texts: list[str] = []
        self._calls: list[Message] = []

    def takes(self, item: AnyItem) -> bool:
        """Whether it belongs to the same message."""
        if isinstance(item, ReasoningItem):
            return not self._texts and not self._calls
        if isinstance(item, MessageItem):
            return item.role == "assistant" and (not self._texts or bool(self._calls))
        return isinstance(item, FunctionCallItem | CustomCallItem)

    def add(self, item: AnyItem) -> None:
        match item:
            case ReasoningItem():
                self._reasoning += [part.text for part in item.content]
            case MessageItem():
                self._texts.append(item.content)
            case FunctionCallItem() | CustomCallItem():
                self._calls.append(call(item.call_id, full_name(item.name, item.namespace), item.arguments))

    def message(self) -> list[Message]:
        """One, or none of an item that has no text."""
        if not (self._reasoning or self._texts or self._calls):
            return []
        return [assistant("\n".join(self._texts), self._calls, reasoning="\n".join(self._reasoning))]


def messages_of(items: Sequence[AnyItem], instructions: str | None) -> list[Message]:
    """`instructions` and system messages at the begin are one message: many templates take one, and there only."""
    messages: list[Message] = []
    turn = _Turn()
    for item in items:
        if not turn.takes(item):
            messages += turn.message()
            turn = _Turn()
        match item:
            case AgentMessageItem():
                messages.append({"role": "user", "content": item.content})
            case OutputItem():
                messages.append(result(item.call_id, item.output))
            case MessageItem() if item.role != "assistant":
                messages.append({"role": item.role, "content": item.content})
            case _:
                turn.add(item)
    return _with_one_system([*messages, *turn.message()], instructions)


def _with_one_system(messages: list[Message], instructions: str | None) -> list[Message]:
    leading = list(takewhile(lambda message: message["role"] in ("system", "developer"), messages))
    if instructions:
        leading.insert(0, {"role": "system", "content": instructions})
    rest = messages[len(leading) - bool(instructions) :]
    if len(leading) < 2:
        return [*leading, *rest]
    text = "\n\n".join([message["content"] for message in leading])
    return [{"role": "system", "content": text}, *rest]
