"""Tools, and calls of them, in the form of OpenAI's /v1/chat/completions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, Self

from pydantic import ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from pipeline.front.api.body import Body
from pipeline.front.api.chat.messages import call
from pipeline.front.api.chat.tools import AUTO, MOST_TOOLS, NAME, NONE, REQUIRED, Tool, ToolUse
from pipeline.front.api.fields import Kind, given, only, wrong
from pipeline.front.api.schema import MADE, WORDS, Schema
from pipeline.front.settings import FrontSettings

ToolName = Annotated[
    str, Field(pattern=NAME, max_length=128, description="Letters, digits and _ - . : /, up to 128.")
]


class FunctionTool(Body):
    name: ToolName
    description: str | None = given(None, "When to call it; for the model.")
    parameters: dict[str, Any] | None = given(None, "JSON schema of its arguments, an object; by default any object.")
    strict: bool | None = given(
        None,
        "true: every call follows the schema; left out: those that tool_choice demands do, and others as well as the "
        "model can; false: arguments are any JSON object.",
    )

    def tool(self) -> Tool:
        return Tool(self.name, self.description or "", self.parameters, self.strict)


class GrammarText(Body):
    syntax: Annotated[str, only("lark", "regex")]
    definition: str = Field(min_length=1)


class CustomFormat(Body):
    type: Annotated[str, only("text", "grammar")]
    grammar: GrammarText | None = None


class CustomTool(Body):
    name: ToolName
    description: str | None = given(None, "When to call it; for the model.")
    format: CustomFormat | None = given(None, "Of its input: any text, or what a grammar allows.")

    def tool(self) -> Tool:
        rules = None if self.format is None else self.format.grammar
        grammar = None if rules is None else (rules.syntax, rules.definition)
        return Tool(self.name, self.description or "", custom=True, grammar=grammar)


def _needed(name: str) -> Schema:
    return {"required": [name], "properties": {name: {"not": {"const": None}}}}


class ChatTool(Body):
    """`function` or `custom`, as its type says."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"type": {"const": "custom"}}},
            "then": _needed("custom"),
            "else": _needed("function"),
        }
    )
    PLACE = "tools[]."

    type: Annotated[str, only("function", "custom", reason="other tools are not supported")]
    function: FunctionTool | None = None
    custom: CustomTool | None = None

    @model_validator(mode="after")
    def _described(self) -> Self:
        if (self.function if self.type == "function" else self.custom) is None:
            wrong("is missing: expected an object with a name", f".{self.type}")
        return self

    def tool(self) -> Tool:
        inner = self.function if self.type == "function" else self.custom
        assert inner is not None  # it was looked at
        return inner.tool()


class WhereKnown:
    """There can be tools only where the form of the model's calls is known."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        return {**handler(core), MADE: lambda settings: {} if settings.calls_tools else {"maxItems": 0}}


ChatTools = Annotated[list[ChatTool], Field(max_length=MOST_TOOLS), WhereKnown()]


# ---- which of them -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """`allowed`: names of those that may be called; None: all."""

    choice: str = AUTO
    name: str = ""
    allowed: tuple[str, ...] | None = None


USUAL: Final = ToolChoice()
_MODES: Final = (NONE, AUTO, REQUIRED)
_KINDS: Final = ("function", "custom")


def _name_in(value: Any, kind: str, *, flat: bool) -> str:
    named = value if flat else value.get(kind)
    name = named.get("name") if isinstance(named, dict) else None
    if not isinstance(name, str) or not name:
        raise ValueError
    return name


def _listed(value: Any) -> list[Any]:
    if type(value) is not list or not value:  # which would be tool_choice: none
        raise ValueError
    return value


def _one_of(value: Any, *, flat: bool) -> str:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind not in _KINDS:
        raise ValueError
    return _name_in(value, kind, flat=flat)


def tool_choice(*, flat: bool) -> Kind:
    """`flat`: a tool's name stands beside its type, as in /v1/responses, not in an object of its own."""

    def read(value: Any, settings: FrontSettings) -> ToolChoice:
        if isinstance(value, str) and value in _MODES:
            return ToolChoice(value)
        if not isinstance(value, dict) or value.get("type") != "allowed_tools":
            return ToolChoice(name=_one_of(value, flat=flat))
        inner = value if flat else value.get("allowed_tools")
        if not isinstance(inner, dict) or inner.get("mode") not in (AUTO, REQUIRED):
            wrong("has no mode, expected auto or required", ".mode" if flat else ".allowed_tools.mode")
        tools = inner.get("tools")
        return ToolChoice(inner["mode"], allowed=tuple(_one_of(one, flat=flat) for one in _listed(tools)))

    words = "none, auto, required, an object that names a tool, or allowed tools"
    schema = {"anyOf": [{"enum": list(_MODES)}, *_choices(flat=flat)], WORDS: words}
    stated = {**schema, "default": AUTO, "description": f"Which tools the model may call: {words}."}
    return Kind(read, lambda _: stated)


def _choices(*, flat: bool) -> list[Schema]:
    one = {"name": {"type": "string", "minLength": 1}}

    def named(kind: str) -> Schema:
        inner = one if flat else {kind: {"type": "object", "properties": one, "required": ["name"]}}
        return {"type": "object", "properties": {"type": {"const": kind}, **inner}, "required": ["type", *inner]}

    tools = {"type": "array", "items": {"anyOf": [named(kind) for kind in _KINDS]}, "minItems": 1}
    several = {"mode": {"enum": [AUTO, REQUIRED]}, "tools": tools}
    inner = several if flat else {"allowed_tools": {"type": "object", "properties": several, "required": [*several]}}
    allowed = {"type": {"const": "allowed_tools"}, **inner}
    return [*map(named, _KINDS), {"type": "object", "properties": allowed, "required": [*allowed]}]


ChatToolChoice = Annotated[ToolChoice, tool_choice(flat=False)]


def tool_use(tools: list[Tool], chosen: ToolChoice, *, parallel: bool) -> ToolUse:
    return ToolUse(tuple(tools), chosen.choice, chosen.name, parallel, allowed=chosen.allowed)


# ---- calls in messages ---------------------------------------------------------------------------------------------


def _arguments(value: Any, settings: FrontSettings) -> str | dict[str, Any]:
    if isinstance(value, str | dict):
        return value
    raise ValueError


_ARGUMENTS_ARE: Final = "a text of JSON, or the object itself"
Arguments = Annotated[
    str | dict[str, Any],
    Kind(_arguments, lambda _: {"anyOf": [{"type": "string"}, {"type": "object"}], WORDS: _ARGUMENTS_ARE}),
]


class CalledFunction(Body):
    name: str = Field(min_length=1)
    arguments: Arguments = given("", "JSON.")


class CalledCustom(Body):
    name: str = Field(min_length=1)
    input: str = ""


class MessageCall(Body):
    """A call in an assistant's message."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [_needed("function"), _needed("custom")]})
    PLACE = "messages[].tool_calls[]."

    id: str = given("", "By which a tool's message names it.")
    type: Annotated[str, only("function", "custom")] = "function"
    index: Any = given(None, "Accepted without effect: it comes from events of a stream.")
    function: CalledFunction | None = None
    custom: CalledCustom | None = None

    @model_validator(mode="after")
    def _described(self) -> Self:
        if self.function is None and self.custom is None:
            wrong("is missing: expected an object with a name", f".{self.type}")
        return self

    def for_template(self) -> dict[str, Any]:
        if self.function is None:
            assert self.custom is not None  # it was looked at
            return call(self.id, self.custom.name, {"input": self.custom.input})
        return call(self.id, self.function.name, self.function.arguments)
