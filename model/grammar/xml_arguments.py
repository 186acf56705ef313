"""Calls with an element for each argument: texts as they are, everything else as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from model.grammar.errors import GrammarError
from model.grammar.literals import Literals
from model.grammar.pattern import literal
from model.grammar.rules import (
    Bounds,
    Parts,
    Tool,
    closing,
    each,
    either,
    impossible,
    is_free,
    plain_name,
    properties,
    quoted,
    types_of,
)
from model.response.format import Calls
from model.response.xml_calls import declared_types

_ANY: Final = r"(?s:.*)"
_CLASS: Final = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]")
_NAMES: Final = ("null", "true", "false")
_FREE: Final = ""
"""Instead of an expression: any text."""


def write_xml(form: Calls, tools: Sequence[Tool], parts: Parts, bounds: Bounds) -> str:
    ways = each(tools, lambda tool: _call(form, tool, parts))
    return f"{ways} {quoted(form.arguments_end)}{closing(form)}"


def _call(form: Calls, tool: Tool, parts: Parts) -> str:
    begin, middle, _ = form.parameter
    text = quoted(f"{form.name_begin}{plain_name(tool)}{form.name_end}")
    if is_free(tool.schema):
        key = parts.rule("KEY", r"/[^<>\s]{1,128}/")
        return f"{text} ({quoted(begin)} {key} {quoted(middle)} {_free_text(form, parts)})*"
    for name, inner, needed in properties(tool.schema):
        value = _Value(form, parts, _types(tool, name)).written(inner, tool.schema.get("$defs"))
        one = f"{quoted(begin + _key(name, form) + middle)} {value}"
        text += f" {one}" if needed else f" ({one})?"
    return text


def _key(name: str, form: Calls) -> str:
    if name != name.strip() or not name or form.parameter[1].strip()[:1] in name:
        raise GrammarError("properties", f"{name!r} can't be an argument's name in the form of this model's calls")
    return name


def _types(tool: Tool, name: str) -> frozenset[str]:
    """By which a reader decides whether a text is a string."""
    known = tool.declared.get("properties")
    return frozenset(declared_types(known.get(name))) if isinstance(known, Mapping) else frozenset()


def _free_text(form: Calls, parts: Parts) -> str:
    """With its end: the first that a reader would take for it."""
    end = form.parameter[2]
    mark = end.strip()
    behind = end[end.index(mark) + len(mark) :]
    return parts.lazy("text", f"/{_ANY}/ {quoted(mark)}") + (f" {quoted(behind)}" if behind else "")


class _Value:
    """Of one parameter. ``types``: that it is declared to have."""

    def __init__(self, form: Calls, parts: Parts, types: frozenset[str]) -> None:
        self._form, self._parts, self._types = form, parts, types
        self._end = form.parameter[2]

    def written(self, schema: Any, definitions: Any) -> str:
        """With what stands behind it. Raises GrammarError for what can't be enforced."""
        if self._types and "string" not in self._types:
            self._require_types(schema)
            return self._json(schema, definitions)
        if not self._types and self._form.json_values and schema is not True and schema != {}:
            return self._json(schema, definitions)
        ways = list(self._texts(schema))
        nulls = "null" in self._types
        if nulls and not _allows_null(schema):  # such a text would be read as null
            ways = [way for way in ways if way != quoted(f"null{self._end}")]
            if not all(way.startswith('"') for way in ways):
                raise impossible("type")
        elif nulls:
            ways.append(quoted(f"null{self._end}"))
        if not ways:
            raise GrammarError("type", "no string fits, but one would be read in the form of this model's calls")
        return _free_text(self._form, self._parts) if _FREE in ways else either(list(dict.fromkeys(ways)))

    def _require_types(self, schema: Any) -> None:
        """A reader looks for no others."""
        branches = [] if "type" in schema else schema.get("anyOf", ())
        if not all(isinstance(one, Mapping) and one.get("type") in tuple(self._types) for one in branches):
            raise impossible("anyOf")

    def _json(self, schema: Any, definitions: Any) -> str:
        """Strings in it must not spell what stands behind it."""
        values = Literals(definitions or {}, self._parts, _NAMES, never=self._end.strip())
        return f"{values.rule(schema)} {quoted(self._end)}"

    def _texts(self, schema: Any) -> Iterator[str]:
        """Rules for the strings that fit, each with what stands behind it."""
        if not isinstance(schema, Mapping):
            yield from [_FREE] if schema else []
            return
        bounds = schema.keys() & {"minLength", "maxLength", "pattern"}
        several = schema.keys() & {"enum", "const", "anyOf", "allOf", "$ref"}
        if "string" not in types_of(schema, "string"):
            return
        if several & {"allOf", "$ref"} or len(several) > 1 or (several and bounds):
            raise impossible(min(several - {"anyOf", "enum"} or bounds or several))
        if "anyOf" in schema:
            for branch in schema["anyOf"]:
                yield from self._texts(branch)
        elif several:
            values = schema.get("enum", [schema.get("const")])
            yield from (self._literal(value, min(several)) for value in values if isinstance(value, str))
        else:
            yield self._bounded(schema) if bounds else _FREE

    def _literal(self, text: str, keyword: str) -> str:
        if self._end.strip() in text or text.endswith("\r"):
            raise impossible(keyword)
        return quoted(text + self._end)

    def _bounded(self, schema: Mapping[str, Any]) -> str:
        """One terminal, end included: a text's own new line must not be taken for the last one."""
        wanted = [f"/(?s:.{{{schema.get('minLength', 0)},{schema.get('maxLength', '')}}})/"]
        if "pattern" in schema:
            wanted.append(f"/{_whole(schema['pattern'])}/")
        wanted += [f"~/{_ANY}{literal(self._end.strip())}{_ANY}/", rf"~/{_ANY}\r/"]
        return self._parts.rule("TEXT", f"({' & '.join(wanted)}) {quoted(self._end)}")


def _whole(pattern: str) -> str:
    """Of a whole text in which the pattern, a canonical one, can be found."""
    start, end = pattern.startswith("^"), pattern.endswith("$")
    inner = pattern[start : len(pattern) - end]
    if {"^", "$"} & set(_CLASS.sub("", inner)):
        raise impossible("pattern")
    whole = f"{'' if start else _ANY}(?:{inner}){'' if end else _ANY}"
    return whole.replace("/", r"\x{2f}")


def _allows_null(schema: Any) -> bool:
    if not isinstance(schema, Mapping):
        return bool(schema)
    if "null" not in types_of(schema, "null") or schema.keys() & {"allOf", "$ref"}:
        return False
    if schema.keys() & {"enum", "const"}:
        return None in schema.get("enum", [schema.get("const", 0)])
    return "anyOf" not in schema or any(map(_allows_null, schema["anyOf"]))
