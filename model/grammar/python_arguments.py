"""Calls as Python writes them. Most of JSON is Python, too; the names of its constants are not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from model.grammar.errors import GrammarError
from model.grammar.rules import (
    REMARKS,
    WRITTEN,
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

_NAMES: Final = {"boolean": '("True" | "False")', "null": '"None"'}
_PLAIN: Final = {"type": ["string", "number"]}


def write_pythonic(form: Calls, tools: Sequence[Tool], parts: Parts, more: int) -> str:
    ways = [f'{quoted(tool + "(")} {_arguments(schema_of(takes), parts)} ")"' for tool, takes in tools]
    one = parts.rule("item", either(ways))
    others = f' ("," WS? {one}){{0,{more}}}' if more else ""
    return f'WS? "[" {one}{others} "]"{closing(form)}'


def _arguments(schema: Mapping[str, Any], parts: Parts) -> str:
    if is_free(schema):
        key, value = (
            parts.rule("key", r"/[A-Za-z_][A-Za-z0-9_]{0,127}/"),
            either([parts.schema(_PLAIN), *_NAMES.values()]),
        )
        return f'({key} "=" {value} ("," WS? {key} "=" {value})*)?'
    every = list(properties(schema))
    if bad := next((name for name, *_ in every if not (name.isidentifier() and name.isascii())), None):
        message = f"{bad!r} can't be an argument's name in the form of this model's calls"
        raise GrammarError("properties", message)
    written = [(f"{quoted(name + '=')} {_literal(one, parts)}", needed) for name, one, needed in every]
    needed, others = [one for one, must in written if must], [one for one, must in written if not must]
    if needed:
        return ' "," WS? '.join(needed) + "".join(f' ("," WS? {one})?' for one in others)
    ways = [one + "".join(f' ("," WS? {other})?' for other in others[at + 1 :]) for at, one in enumerate(others)]
    return f"{either(ways)}?" if ways else '""'


def _literal(schema: Any, parts: Parts) -> str:
    if not isinstance(schema, Mapping) or not _mentions_names(schema):
        return parts.schema(schema if isinstance(schema, Mapping) and schema else _PLAIN)
    if "enum" in schema or "const" in schema:
        return either([quoted(repr(value)) for value in schema.get("enum", [schema.get("const")])])
    kind, inside = schema.get("type"), schema.keys() - REMARKS
    if isinstance(kind, list):
        return either([_literal({**schema, "type": one}, parts) for one in kind])
    if kind is None and "anyOf" in schema:
        return either([_literal(one, parts) for one in schema["anyOf"]])
    if kind in _NAMES:
        return _NAMES[kind]
    return _collection(schema, kind, inside, parts)


def _collection(schema: Mapping[str, Any], kind: Any, inside: frozenset[str] | set[str], parts: Parts) -> str:
    if kind == "array" and inside <= {"type", "items"} and "items" in schema:
        item = parts.rule("element", _literal(schema["items"], parts))
        return f'"[" ({item} ("," WS? {item})*)? "]"'
    if kind == "object" and inside <= WRITTEN and schema.get("properties"):
        pairs = [
            f'{quoted(json.dumps(name))} WS? ":" WS? {_literal(one, parts)}' for name, one, _ in properties(schema)
        ]
        return '"{" ' + ' "," WS? '.join(pairs) + ' "}"'
    raise impossible(max(inside - {"type"}, default="type"))


def _mentions_names(schema: Any) -> bool:
    """Its values may have true, false or null in them. Of anything at all only texts and numbers are written."""
    if not isinstance(schema, Mapping):
        return False
    values = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else [])]
    kinds = schema.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else kinds
    inside = [*schema.get("properties", {}).values(), *schema.get("anyOf", ()), *schema.get("prefixItems", ())]
    inside += [schema[name] for name in ("items", "additionalProperties") if name in schema]
    free = ("array" in kinds and "items" not in schema) or ("object" in kinds and is_free(schema))
    named = free or any(value is None or isinstance(value, bool | list | dict) for value in values)
    return named or not {"boolean", "null"}.isdisjoint(kinds) or any(map(_mentions_names, inside))
