"""How calls are written between their marks, as rules of a Lark grammar: one writer for each syntax."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from model.grammar.python_arguments import write_pythonic
from model.grammar.rules import Parts, Tool, closing, either, quoted, schema_of
from model.grammar.xml_arguments import write_xml
from model.response.format import Calls, Syntax


def _json(form: Calls, tools: Sequence[Tool], parts: Parts, more: int) -> str:
    return f"WS? {_json_object(form, tools, parts)}{closing(form)}"


def _json_list(form: Calls, tools: Sequence[Tool], parts: Parts, more: int) -> str:
    one = parts.rule("item", _json_object(form, tools, parts))
    others = f' ("," WS? {one}){{0,{more}}}' if more else ""
    return f'WS? "[" WS? {one}{others} WS? "]"{closing(form)}'


def _json_object(form: Calls, tools: Sequence[Tool], parts: Parts) -> str:
    name, arguments = quoted(json.dumps(form.name_key)), quoted(json.dumps(form.arguments_key))
    ways = []
    for tool, takes in tools:
        spelled = quoted(json.dumps(tool, ensure_ascii=False))
        if isinstance(takes, str):
            ways.append(f'{spelled} ", \\"input\\":\\n" {takes} "\\n"')
        else:
            ways.append(f'{spelled} WS? "," WS? {arguments} WS? ":" WS? {parts.schema(takes)} WS?')
    return f'"{{" WS? {name} WS? ":" WS? {either(ways)} "}}"'


def _json_arguments(form: Calls, tools: Sequence[Tool], parts: Parts, more: int) -> str:
    ways = []
    for tool, takes in tools:
        head = quoted(f"{form.name_begin}{tool}{form.name_end}")
        ways.append(f"{head} WS? {parts.schema(schema_of(takes))}")
    end = f" WS? {quoted(form.arguments_end)}" if form.arguments_end else ""
    return either(ways) + end + closing(form)


WRITERS: Final[Mapping[Syntax, Callable[[Calls, Sequence[Tool], Parts, int], str]]] = {
    Syntax.JSON: _json,
    Syntax.JSON_LIST: _json_list,
    Syntax.JSON_ARGUMENTS: _json_arguments,
    Syntax.XML: write_xml,
    Syntax.PYTHONIC: write_pythonic,
}
"""Each gets the form, its tools, and how many calls more than one there may be; what it returns follows the mark."""

LISTED: Final = frozenset({Syntax.JSON_LIST, Syntax.PYTHONIC})
"""Where one pair of marks has all calls."""
