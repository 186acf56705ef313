"""Tools in the form of Anthropic's /v1/messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from pipeline.front.api.body import Body
from pipeline.front.api.chat.tools import AUTO, MOST_TOOLS, NONE, REQUIRED, Tool, ToolUse
from pipeline.front.api.fields import also, given, only
from pipeline.front.api.one_of import OneOf
from pipeline.front.api.openai.tools import ToolName


@also({"defer_loading": (False,)}, labels="cache_control allowed_callers eager_input_streaming input_examples")
class CustomTool(Body):
    PLACE: ClassVar[str] = "tools[]."

    type: Annotated[str, only("custom")] = "custom"
    name: ToolName
    description: str | None = given(None, "When to call it; for the model.")
    input_schema: dict[str, Any] = Field(description="JSON schema of its input, an object.")
    strict: bool | None = given(
        None,
        "true: every call follows the schema. false: calls that tool_choice demands are any JSON object, too; left "
        "out: these follow the schema, and others as well as the model can.",
    )

    def tool(self) -> Tool:
        return Tool(self.name, self.description or "", self.input_schema, self.strict)


_TOOL: Final = OneOf(
    {"custom": CustomTool},
    usual=("custom", "name"),
    other="tools that only Anthropic's servers or models know are not supported; leave it out",
)
Tools = Annotated[list[Annotated[CustomTool, _TOOL]], Field(max_length=MOST_TOOLS)]


class _Choice(Body):
    PLACE: ClassVar[str] = "tool_choice."


class FreeChoice(_Choice):
    """`any`: there is at least one call."""

    type: Annotated[str, only("auto", "any")]
    disable_parallel_tool_use: bool = given(False, "There is at most one call.")


class NamedChoice(_Choice):
    """There is a call of this tool, and nothing else."""

    type: Annotated[str, only("tool")]
    name: str = Field(min_length=1)
    disable_parallel_tool_use: bool = given(False, "Accepted without effect: there is exactly one call.")


class NoChoice(_Choice):
    type: Annotated[str, only("none")]


ToolChoice = Annotated[
    FreeChoice | NamedChoice | NoChoice,
    OneOf({"auto": FreeChoice, "any": FreeChoice, "tool": NamedChoice, "none": NoChoice}),
]


def tool_use(tools: Sequence[CustomTool], choice: FreeChoice | NamedChoice | NoChoice | None) -> ToolUse:
    every = tuple(tool.tool() for tool in tools)
    match choice:
        case FreeChoice():
            mode = REQUIRED if choice.type == "any" else AUTO
            return ToolUse(every, mode, parallel=not choice.disable_parallel_tool_use)
        case NamedChoice():
            return ToolUse(every, name=choice.name)
        case NoChoice():
            return ToolUse(every, NONE)
    return ToolUse(every)
