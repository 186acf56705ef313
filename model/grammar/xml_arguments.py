"""Calls with an element for each argument: texts as they are, everything else as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from model.grammar.rules import (
    REMARKS,
    Parts,
    Tool,
    closing,
    either,
    impossible,
    is_free,
    properties,
    quoted,
    schema_of,
)
from model.response.format import Calls
from model.response.xml_calls import declared_types

_OF_TEXTS = frozenset({"type", "minLength", "maxLength", "anyOf", "oneOf"})


def write_xml(form: Calls, tools: Sequence[Tool], parts: Parts, more: int) -> str:
    begin, middle, end = form.parameter
    ways = []
    for tool, takes in tools:
        schema, text = schema_of(takes), quoted(f"{form.name_begin}{tool}{form.name_end}")
        if is_free(schema):
            key = parts.rule("key", r"/[^<>\s]{1,128}/")
            text += f" ({quoted(begin)} {key} {quoted(middle)} {_free_text(end, parts)})*"
        for name, inner, needed in properties(schema):
            one = f"{quoted(begin + name + middle)} {_value(inner, end, parts)}"
            text += f" {one}" if needed else f" ({one})?"
        ways.append(text)
    return f"{either(ways)} {quoted(form.arguments_end)}{closing(form)}"


def _value(schema: Any, end: str, parts: Parts) -> str:
    """With what stands behind it."""
    types = declared_types(schema)
    if types and "string" not in types:
        return f"{parts.schema(schema)} {quoted(end)}"
    if not isinstance(schema, dict):
        return _free_text(end, parts)
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return f"{either([quoted(str(value)) for value in values])} {quoted(end)}"
    if others := schema.keys() - _OF_TEXTS - REMARKS:
        raise impossible(min(others))
    if {"minLength", "maxLength"} & schema.keys():
        least, most = schema.get("minLength", 0), schema.get("maxLength", "")
        return f"{parts.rule('text', f'/[^<]{{{least},{most}}}/')} {quoted(end)}"
    return _free_text(end, parts)


def _free_text(end: str, parts: Parts) -> str:
    unique = f"text_{len(parts.rules)}"
    parts.rules.append(f"{unique}[lazy]: /(.|\\n)*/ {quoted(end)}")
    return unique
