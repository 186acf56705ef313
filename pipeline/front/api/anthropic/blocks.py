"""The messages of Anthropic's /v1/messages: blocks, which become the messages of a chat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Annotated, Any, ClassVar, Final

from pydantic import ConfigDict, FailFast, Field

from model.tokenizer import Message
from pipeline.front.api.body import Body, Problem
from pipeline.front.api.chat.messages import assistant, call, result
from pipeline.front.api.fields import also, given, only
from pipeline.front.api.one_of import OneOf, TextOr

_TEXT_ONLY: Final = "the model reads text only"
_ROLES: Final = ("user", "assistant", "system")
_BILLING: Final = "x-anthropic-billing-header:"
"""Claude Code begins its system prompt with such a line. It is no instruction, and would be another one in each
request, so that nothing behind it could be found in the prefix cache."""

_REMINDER: Final = "<system-reminder>\n%s\n</system-reminder>"
"""How Claude Code writes them where there are no system messages within a conversation."""


class TextBlock(Body):
    """Other members, such as hints for caches, are ignored."""

    model_config = ConfigDict(extra="ignore")
    ROLES: ClassVar[tuple[str, ...]] = _ROLES

    type: Annotated[str, only("text")]
    text: str


class _Block(Body):
    PLACE: ClassVar[str] = "messages[].content[]."
    ROLES: ClassVar[tuple[str, ...]]


class ThinkingBlock(_Block):
    ROLES = ("assistant",)

    type: Annotated[str, only("thinking")]
    thinking: str
    signature: Any = given(None, "Accepted without effect.")


@also({}, labels="data")
class RedactedThinking(_Block):
    ROLES = ("assistant",)

    type: Annotated[str, only("redacted_thinking")]


@also({}, labels="cache_control caller toolset_name")
class ToolUseBlock(_Block):
    ROLES = ("assistant",)

    type: Annotated[str, only("tool_use")]
    id: str = Field(min_length=1)
    name: str = Field(min_length=1)
    input: dict[str, Any]


def _joined(blocks: Sequence[Any]) -> str:
    return "\n".join([block.text for block in blocks])


_TEXTS: Final = OneOf({"text": TextBlock}, other=_TEXT_ONLY)
_TEXT_LIST = Annotated[list[Annotated[TextBlock, _TEXTS]], FailFast()]
Texts = Annotated[str, TextOr(_TEXT_LIST, str, _joined, "a string or a list of text blocks")]


@also({}, labels="cache_control toolset_name")
class ToolResultBlock(_Block):
    ROLES = ("user",)

    type: Annotated[str, only("tool_result")]
    tool_use_id: str = Field(min_length=1)
    content: Texts = given("", "What the tool has returned.")
    is_error: bool = given(False, 'The tool failed: "Error: " is put before its content.')


KINDS: Final[dict[str, type[Body]]] = {
    "text": TextBlock,
    "tool_use": ToolUseBlock,
    "tool_result": ToolResultBlock,
    "thinking": ThinkingBlock,
    "redacted_thinking": RedactedThinking,
}
AnyBlock = TextBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock | RedactedThinking
_BLOCK: Final = OneOf(
    KINDS,
    refused=dict.fromkeys(("image", "document", "search_result", "container_upload"), _TEXT_ONLY),
    other="tools that the server itself would run are not supported",
)
_BLOCKS = Annotated[list[Annotated[AnyBlock, _BLOCK]], FailFast()]


def _of_text(text: str) -> tuple[AnyBlock, ...]:
    return (TextBlock.model_construct(type="text", text=text),)


Content = Annotated[tuple[AnyBlock, ...], TextOr(_BLOCKS, _of_text, tuple, "a string or a list of blocks")]


class Turn(Body):
    """A message. Those of one role that follow one another are taken for one."""

    PLACE: ClassVar[str] = "messages[]."

    role: Annotated[str, only(*_ROLES)]
    content: Content

    def problems(self, place: str) -> Iterator[Problem]:
        """`place`: of the message."""
        for index, block in enumerate(self.content):
            if self.role not in block.ROLES:
                told = f"{place}.content[{index}] is a block of type {block.type}, which only"
                yield f"{place}.content", f"{told} a message of the role {block.ROLES[0]} may have"


# ---- as messages ---------------------------------------------------------------------------------------------------


def messages_of(turns: Sequence[Turn], system: str) -> list[Message]:
    """`system` and system messages at the begin are one message: many templates take one, and there only. Later ones
    are reminders in a user's message."""
    text = system.partition("\n")[2] if system.startswith(_BILLING) else system
    heading = [Turn.model_construct(role="system", content=_of_text(text))] if text else []
    begun = next((at for at, turn in enumerate(turns) if turn.role != "system"), len(turns))
    every = [*heading, *turns[:begun], *map(_reminding, turns[begun:])]
    messages: list[Message] = []
    for role, same in groupby(every, lambda turn: turn.role):
        messages += _messages(role, [block for turn in same for block in turn.content])
    return messages


def _reminding(turn: Turn) -> Turn:
    if turn.role != "system":
        return turn
    return Turn.model_construct(role="user", content=_of_text(_REMINDER % _joined(turn.content)))


def _messages(role: str, blocks: list[AnyBlock]) -> Iterator[Message]:
    texts = [block for block in blocks if isinstance(block, TextBlock)]
    if role == "assistant":
        calls = [_call(block) for block in blocks if isinstance(block, ToolUseBlock)]
        thoughts = [block.thinking for block in blocks if isinstance(block, ThinkingBlock)]
        yield assistant(_joined(texts), calls, reasoning="\n".join(thoughts))
        return
    results = [block for block in blocks if isinstance(block, ToolResultBlock)]
    for block in results:
        yield result(block.tool_use_id, "Error: " * block.is_error + block.content)
    if texts or not results:
        yield {"role": role, "content": _joined(texts)}


def _call(block: ToolUseBlock) -> Message:
    return call(block.id, block.name, block.input)
