"""Jinja, as transformers' `apply_chat_template` sets it up."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import NoReturn

from jinja2 import Template, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

__all__ = ["TemplateError", "TemplateSyntaxError", "compiled"]


class GenerationBlock(Extension):
    """``{% generation %}`` marks the assistant's text for training; in a prompt it is just its content."""

    tags = {"generation"}  # noqa: RUF012 - the name and kind that Jinja asks for

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(line)

    def _content(self, caller: Macro | Callable[[], str]) -> str:
        return caller()


def compiled(source: str) -> tuple[Template, frozenset[str]]:
    """And the variables that it asks for. Raises TemplateSyntaxError."""
    environment = _make_environment()
    asked_for: set[str] = meta.find_undeclared_variables(environment.parse(source))
    return environment.from_string(source), frozenset(asked_for)


def _make_environment() -> ImmutableSandboxedEnvironment:
    """The environment of transformers' `apply_chat_template`; templates are written for exactly this one."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike Jinja's own filter it does not escape HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    """Local time, as templates that tell the model today's date expect it."""
    return datetime.datetime.now().astimezone().strftime(form)
