"""Calls as Python writes them. Most of JSON is Python, too; the names of its constants are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from model.grammar.errors import GrammarError
from model.grammar.literals import Literals
from model.grammar.rules import (
    Bounds,
    Parts,
    Tool,
    closing,
    each,
    is_free,
    listed,
    plain_name,
    properties,
    quoted,
    sequence,
)
from model.response.format import Calls

_NAMES: Final = ("None", "True", "False")


def write_pythonic(form: Calls, tools: Sequence[Tool], parts: Parts, bounds: Bounds) -> str:
    def way(tool: Tool) -> str:
        return f'{quoted(plain_name(tool) + "(")} {_arguments(tool.schema, parts)} ")"'

    return f'WS? "[" {listed(each(tools, way), bounds, parts)} "]"{closing(form)}'


def _arguments(schema: Mapping[str, Any], parts: Parts) -> str:
    values = Literals(schema.get("$defs", {}), parts, _NAMES, never="")
    if is_free(schema):
        one = f'{parts.rule("KEY", "/[A-Za-z_][A-Za-z0-9_]{0,127}/")} "=" {values.rule(True)}'
        return f'({one} ("," WS? {one})*)?'
    every = list(properties(schema))
    if bad := next((name for name, *_ in every if not (name.isidentifier() and name.isascii())), None):
        message = f"{bad!r} can't be an argument's name in the form of this model's calls"
        raise GrammarError("properties", message)
    return sequence([(f"{quoted(name + '=')} {values.rule(one)}", must) for name, one, must in every], parts)
