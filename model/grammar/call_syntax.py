"""How calls are written between their marks, as rules of a Lark grammar: one writer for each syntax."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from model.grammar.python_arguments import write_pythonic
from model.grammar.rules import Bounds, Parts, Tool, closing, each, listed, plain_name, quoted
from model.grammar.xml_arguments import write_xml
from model.response.format import Calls, Syntax


def _json(form: Calls, tools: Sequence[Tool], parts: Parts, bounds: Bounds) -> str:
    return f"WS? {_json_object(form, tools, parts)}{closing(form)}"


def _json_list(form: Calls, tools: Sequence[Tool], parts: Parts, bounds: Bounds) -> str:
    return f'WS? "[" WS? {listed(_json_object(form, tools, parts), bounds, parts)} WS? "]"{closing(form)}'


def _json_object(form: Calls, tools: Sequence[Tool], parts: Parts) -> str:
    name, arguments = quoted(json.dumps(form.name_key)), quoted(json.dumps(form.arguments_key))

    def way(tool: Tool) -> str:
        spelled = quoted(json.dumps(tool.name, ensure_ascii=False))
        if tool.text:
            return f'{spelled} ", \\"input\\":\\n" {tool.text}'
        return f'{spelled} WS? "," WS? {arguments} WS? ":" WS? {parts.schema(tool.schema)} WS? "}}"'

    return f'"{{" WS? {name} WS? ":" WS? {each(tools, way)}'


def _json_arguments(form: Calls, tools: Sequence[Tool], parts: Parts, bounds: Bounds) -> str:
    def way(tool: Tool) -> str:
        head = quoted(f"{form.name_begin}{plain_name(tool)}{form.name_end}")
        return f"{head} WS? {parts.schema(tool.schema)}"

    end = f" WS? {quoted(form.arguments_end)}" if form.arguments_end else ""
    return each(tools, way) + end + closing(form)


WRITERS: Final[Mapping[Syntax, Callable[[Calls, Sequence[Tool], Parts, Bounds], str]]] = {
    Syntax.JSON: _json,
    Syntax.JSON_LIST: _json_list,
    Syntax.JSON_ARGUMENTS: _json_arguments,
    Syntax.XML: write_xml,
    Syntax.PYTHONIC: write_pythonic,
}
"""Each gets the form, its tools, and how many calls there may be; what it returns follows the mark."""

LISTED: Final = frozenset({Syntax.JSON_LIST, Syntax.PYTHONIC})
"""Where one pair of marks has all calls."""
