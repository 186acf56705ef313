"""Tools that a model may call, by whichever API they came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from model.grammar import ToolShape
from model.response import RAW
from pipeline.front.api.body import shown

AUTO: Final = "auto"
NONE: Final = "none"
REQUIRED: Final = "required"

INPUT: Final = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
"""Arguments of a custom tool."""

MOST_TOOLS: Final = 128
NAME: Final = r"^[\w.:/-]+$"
_TOLD: Final = 5  # names, in an error


@dataclass(frozen=True, slots=True)
class Tool:
    """`parameters`: a JSON schema, or None: any object. `strict`: true: every call follows it; false: guaranteed
    calls need not. `custom`: it takes a text, which its calls have as the argument `input`; `grammar`: kind ("lark"
    or "regex") and definition of that text."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    strict: bool | None = None
    custom: bool = False
    grammar: tuple[str, str] | None = None

    @property
    def bound(self) -> bool:
        """Its calls need a grammar, even where the model chooses freely."""
        return self.strict is True or self.grammar is not None

    @property
    def schema(self) -> Any:
        """Of its calls' arguments, for what reads them."""
        return RAW if self.grammar is not None else INPUT if self.custom else self.parameters

    def for_template(self) -> dict[str, Any]:
        described = self.description
        if self.grammar is not None:
            kind, text = self.grammar
            described = f"{described}\n\nThe input must match this {kind} grammar:\n{text}".lstrip()
        parameters = INPUT if self.custom else self.parameters or {"type": "object", "properties": {}}
        return {
            "type": "function",
            "function": {"name": self.name, "description": described, "parameters": parameters},
        }

    def shape(self, *, guaranteed: bool) -> ToolShape:
        if self.custom:
            return ToolShape(self.name, INPUT, self.grammar)
        follows = self.strict is not False if guaranteed else self.strict is True
        return ToolShape(self.name, self.parameters if follows else None)


@dataclass(frozen=True, slots=True)
class ToolUse:
    """`choice`: AUTO, NONE or REQUIRED; `name`: of the tool that has to be called. `parallel`: there may be several
    calls. `allowed`: names of those that may be called, of all that the model is shown; None: all."""

    tools: tuple[Tool, ...] = ()
    choice: str = AUTO
    name: str = ""
    parallel: bool = True
    allowed: tuple[str, ...] | None = None

    @property
    def offered(self) -> tuple[Tool, ...]:
        """That the model is shown."""
        return () if self.choice == NONE else self.tools

    @property
    def callable(self) -> tuple[Tool, ...]:
        """That the model may call."""
        if self.name:
            return tuple(tool for tool in self.offered if tool.name == self.name)
        if self.allowed is None:
            return self.offered
        allowed = frozenset(self.allowed)
        return tuple(tool for tool in self.offered if tool.name in allowed)

    @property
    def custom(self) -> frozenset[str]:
        """Names of those that take a text."""
        return frozenset(tool.name for tool in self.tools if tool.custom)

    @property
    def guaranteed(self) -> bool:
        return bool(self.name) or self.choice == REQUIRED

    @property
    def bound(self) -> bool:
        free = self.parallel and self.allowed is None
        return self.guaranteed or not free or any(tool.bound for tool in self.offered)


NO_TOOLS: Final = ToolUse()


def problems(use: ToolUse) -> Iterator[tuple[str, str]]:
    """What is wrong with them together: a parameter, and what to say of it."""
    names = Counter(tool.name for tool in use.tools)
    twice = next((name for name, count in names.items() if count > 1), None)
    if twice is not None:
        yield "tools", f"tools has two tools with the name {shown(twice)}; each needs its own"
    wanted = [use.name] if use.name else use.allowed or ()
    unknown = next((name for name in wanted if name not in names), None)
    if unknown is not None:
        known = ", ".join(islice(names, _TOLD)) or "none"
        yield "tool_choice", f"tool_choice names {shown(unknown)}, which is not in tools ({known})"
    if use.choice == REQUIRED and not names:
        yield "tool_choice", "tool_choice demands a call, but tools has no tool"
