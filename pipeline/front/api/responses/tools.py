"""Tools in the form of OpenAI's /v1/responses: flat, their names beside their types."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field

from pipeline.front.api.body import Body
from pipeline.front.api.chat.tools import MOST_TOOLS, Tool
from pipeline.front.api.fields import also, given, only
from pipeline.front.api.openai.tools import FunctionTool, GrammarText, ToolChoice, ToolName, tool_choice
from pipeline.front.api.responses.one_of import OneOf

_PLACE: Final = "tools[]."
_ONLY: Final[dict[str, tuple[Any, ...]]] = {"async defer_loading": (False,)}
_LABELS: Final = "allowed_callers output_schema"


@also(_ONLY, labels=_LABELS)
class ResponsesFunction(FunctionTool):
    PLACE = _PLACE

    type: Annotated[str, only("function")]


class AnyInput(Body):
    PLACE = "tools[].format."

    type: Annotated[str, only("text")]

    @property
    def rules(self) -> tuple[str, str] | None:
        return None


class GrammarInput(GrammarText):
    PLACE = "tools[].format."

    type: Annotated[str, only("grammar")]

    @property
    def rules(self) -> tuple[str, str] | None:
        return self.syntax, self.definition


_FORMAT: Final = OneOf({"text": AnyInput, "grammar": GrammarInput})


@also(_ONLY, labels=_LABELS)
class ResponsesCustom(Body):
    PLACE = _PLACE

    type: Annotated[str, only("custom")]
    name: ToolName
    description: str | None = given(None, "When to call it; for the model.")
    format: Annotated[AnyInput | GrammarInput, _FORMAT] | None = given(
        None, "Of its input: any text, or what a grammar allows."
    )

    def tool(self) -> Tool:
        grammar = None if self.format is None else self.format.rules
        return Tool(self.name, self.description or "", custom=True, grammar=grammar)


_TOOL: Final = OneOf(
    {"function": ResponsesFunction, "custom": ResponsesCustom},
    other="tools that the server itself would run are not supported; leave it out",
)
ResponsesTool = Annotated[ResponsesFunction | ResponsesCustom, _TOOL]
ResponsesTools = Annotated[list[ResponsesTool], Field(max_length=MOST_TOOLS)]
FlatToolChoice = Annotated[ToolChoice, tool_choice(flat=True)]
