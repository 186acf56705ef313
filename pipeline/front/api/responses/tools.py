"""Tools in the form of OpenAI's /v1/responses: flat, their names beside their types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final

from pydantic import Field

from pipeline.front.api.body import Body
from pipeline.front.api.chat.tools import MOST_TOOLS, Tool
from pipeline.front.api.fields import also, given, only
from pipeline.front.api.one_of import OneOf
from pipeline.front.api.openai.tools import FunctionTool, GrammarText, ToolChoice, ToolName, tool_choice
from pipeline.front.api.responses.items import CalledTool

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


_OWN: Final[dict[str, type[Body]]] = {"function": ResponsesFunction, "custom": ResponsesCustom}
_OF_NAMESPACE = Annotated[ResponsesFunction | ResponsesCustom, OneOf(_OWN)]


class ResponsesNamespace(Body):
    """Tools of one kind or origin, which may be named as others are: Codex has those of MCP servers so."""

    PLACE = _PLACE

    type: Annotated[str, only("namespace")]
    name: ToolName
    description: str | None = given(None, "What its tools have in common; for the model, before the first of them.")
    tools: list[_OF_NAMESPACE] = Field(max_length=MOST_TOOLS)


_TOOL: Final = OneOf(
    {**_OWN, "namespace": ResponsesNamespace},
    refused={"web_search": 'the server can\'t search; leave it out (Codex: web_search = "disabled")'},
    other="tools that the server itself would run are not supported; leave it out",
)
AnyTool = ResponsesFunction | ResponsesCustom | ResponsesNamespace
ResponsesTools = Annotated[list[Annotated[AnyTool, _TOOL]], Field(max_length=MOST_TOOLS)]


def full_name(name: str, namespace: str | None) -> str:
    """By which the model knows it."""
    return name if namespace is None else f"{namespace}.{name}"


def offered(tools: Sequence[AnyTool]) -> list[tuple[Tool, CalledTool]]:
    """As the model sees them, and as the client does."""
    return [one for tool in tools for one in _offered(tool)]


def _offered(tool: AnyTool) -> Iterator[tuple[Tool, CalledTool]]:
    if not isinstance(tool, ResponsesNamespace):
        made = tool.tool()
        yield made, CalledTool(made.name, custom=made.custom)
        return
    about = tool.description
    for inner in tool.tools:
        made, described = inner.tool(), "\n\n".join(filter(None, (about, inner.description)))
        full = replace(made, name=full_name(made.name, tool.name), description=described)
        yield full, CalledTool(made.name, tool.name, made.custom)
        about = None


FlatToolChoice = Annotated[ToolChoice, tool_choice(flat=True)]
