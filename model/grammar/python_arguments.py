"""Calls as Python writes them. Most of JSON is Python, too; the names of its constants are not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from model.grammar.errors import GrammarError
from model.grammar.rules import (
    Bounds,
    Parts,
    Tool,
    closing,
    each,
    either,
    impossible,
    is_free,
    listed,
    members,
    plain_name,
    properties,
    quoted,
    repeated,
    sequence,
)
from model.response.format import Calls

_NAMES: Final = {"boolean": '("True" | "False")', "null": '"None"'}
_PLAIN: Final = {"type": ["string", "number"]}


def write_pythonic(form: Calls, tools: Sequence[Tool], parts: Parts, bounds: Bounds) -> str:
    def way(tool: Tool) -> str:
        arguments = _Literals(tool.schema.get("$defs", {}), parts).arguments(tool.schema)
        return f'{quoted(plain_name(tool) + "(")} {arguments} ")"'

    return f'WS? "[" {listed(each(tools, way), bounds, parts)} "]"{closing(form)}'


class _Literals:
    """Of values of one canonical schema, of which ``definitions`` are a part."""

    def __init__(self, definitions: Mapping[str, Any], parts: Parts) -> None:
        self._definitions, self._parts = definitions, parts
        self._made: dict[str, str] = {}  # literals of definitions; empty while they are made

    def arguments(self, schema: Mapping[str, Any]) -> str:
        if is_free(schema):
            one = f'{self._parts.rule("KEY", "/[A-Za-z_][A-Za-z0-9_]{0,127}/")} "=" {self.literal(True)}'
            return f'({one} ("," WS? {one})*)?'
        every = list(properties(schema))
        if bad := next((name for name, *_ in every if not (name.isidentifier() and name.isascii())), None):
            message = f"{bad!r} can't be an argument's name in the form of this model's calls"
            raise GrammarError("properties", message)
        return sequence(
            [(f"{quoted(name + '=')} {self.literal(one)}", must) for name, one, must in every], self._parts
        )

    def literal(self, schema: Any) -> str:
        """Of anything at all, only texts, numbers and constants are written. Raises GrammarError."""
        if schema is True or schema == {}:
            return either([self._parts.schema(_PLAIN), *_NAMES.values()])
        if schema is False:
            raise impossible("properties")
        if not self._mentions(schema, frozenset()):
            return self._parts.schema({**schema, "$defs": self._definitions} if self._definitions else schema)
        return self._with_names(schema)

    def _with_names(self, schema: Mapping[str, Any]) -> str:
        said = schema.keys()
        if "$ref" in said:
            self._require(schema, "$ref")
            return self._referred(schema)
        if "enum" in said or "const" in said:
            self._require(schema, "enum" if "enum" in said else "const", "type")
            return either([quoted(_python(value)) for value in _values(schema)])
        if "anyOf" in said:
            self._require(schema, "anyOf")
            return either([self.literal(one) for one in schema["anyOf"]])
        kind = schema.get("type", _kinds(schema))
        if isinstance(kind, list):
            return either([self.literal({**schema, "type": one}) for one in kind])
        if "allOf" in said:
            raise impossible("allOf")
        return _NAMES[kind] if kind in _NAMES else self._collection(schema, kind)

    def _referred(self, schema: Mapping[str, Any]) -> str:
        name = schema["$ref"]
        if name not in self._made:
            self._made[name] = ""
            self._made[name] = self._parts.rule("value", self.literal(self._definition(schema)))
        if not self._made[name]:  # it is a part of itself
            raise impossible("$ref")
        return self._made[name]

    def _require(self, schema: Mapping[str, Any], *only: str) -> None:
        if others := schema.keys() - set(only):
            raise impossible(min(others))

    def _definition(self, schema: Mapping[str, Any]) -> Any:
        return self._definitions[schema["$ref"].removeprefix("#/$defs/")]

    def _collection(self, schema: Mapping[str, Any], kind: str) -> str:
        if kind == "array":
            return self._array(schema)
        if others := schema.keys() & {"patternProperties", "minProperties", "maxProperties"}:
            raise impossible(min(others))
        if not schema.get("properties") and not schema.get("required"):
            if (inner := schema.get("additionalProperties", True)) is False:
                return '"{}"'
            pair = f'{self._parts.schema({"type": "string"})} WS? ":" WS? {self.literal(inner)}'
            return f'"{{" ({pair} ("," WS? {pair})*)? "}}"'
        pairs = [
            (f'{quoted(json.dumps(name, ensure_ascii=False))} WS? ":" WS? {self.literal(one)}', must)
            for name, one, must in members(schema)
        ]
        return f'"{{" {sequence(pairs, self._parts)} "}}"'

    def _array(self, schema: Mapping[str, Any]) -> str:
        if "prefixItems" in schema:
            raise impossible("prefixItems")
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if most == 0 or schema.get("items") is False:
            return '"[]"'
        item = self._parts.rule("element", self.literal(schema.get("items", True)))
        behind = repeated(f'"," WS? {item}', max(least - 1, 0), None if most is None else most - 1)
        some = f"{item} {behind}"
        return f'"[" {some} "]"' if least else f'"[" ({some})? "]"'

    def _mentions(self, schema: Any, seen: frozenset[str]) -> bool:
        """Its values may have true, false or null in them."""
        if not isinstance(schema, Mapping):
            return bool(schema)
        if "$ref" in schema and schema["$ref"] not in seen:
            return self._mentions(self._definition(schema), seen | {schema["$ref"]})
        if "enum" in schema or "const" in schema:
            return any(map(_has_names, _values(schema)))
        branches = [*schema.get("anyOf", ()), *schema.get("allOf", ())]
        if "type" not in schema and ("anyOf" in schema or "$ref" in schema):
            return any(self._mentions(one, seen) for one in branches)
        kinds = schema.get("type", ["null"])
        kinds = {kinds} if isinstance(kinds, str) else set(kinds)
        inside = [*branches]
        if "array" in kinds:
            inside += [*schema.get("prefixItems", ()), schema.get("items", True)]
        if "object" in kinds:
            inside += [*schema.get("properties", {}).values(), *schema.get("patternProperties", {}).values()]
            inside.append(schema.get("additionalProperties", True))
        return not kinds.isdisjoint(_NAMES) or any(self._mentions(one, seen) for one in inside)


def _kinds(schema: Mapping[str, Any]) -> list[str]:
    """Where a schema says none."""
    array, an_object = "items" in schema or "prefixItems" in schema, "properties" in schema
    return ["string", "number", *_NAMES, *["array"] * array, *["object"] * an_object]


def _values(schema: Mapping[str, Any]) -> list[Any]:
    """Of a constant, or of those that are listed, what has the type."""
    values = schema["enum"] if "enum" in schema else [schema["const"]]
    kinds = schema.get("type", ["null", "boolean", "number", "string", "array", "object"])
    wanted = {kinds} if isinstance(kinds, str) else set(kinds)
    fitting = [value for value in values if not wanted.isdisjoint(_types(value))]
    if not fitting:
        raise GrammarError("enum", "no value that is listed has the type")
    return fitting


def _types(value: Any) -> set[str]:
    if isinstance(value, bool) or value is None:
        return {"null" if value is None else "boolean"}
    if isinstance(value, int | float):
        return {"number", "integer"} if value == int(value) else {"number"}
    return {"string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"}


def _has_names(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_has_names, value.values() if isinstance(value, dict) else value))
    return value is None or isinstance(value, bool)


def _python(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_python(name)}: {_python(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_python, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
