"""Values inside of calls, where the library's own JSON would not do: other names, or strings that lack something."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from model.grammar.errors import GrammarError
from model.grammar.pattern import literal
from model.grammar.rules import Parts, either, impossible, members, quoted, repeated, sequence, types_of

_KINDS: Final = ("null", "boolean", "number", "string", "array", "object")


class Literals:
    """Of values of one canonical schema, of which ``definitions`` are a part.

    ``names``: of null, true and false; where they are JSON's, ``never`` is a text of two signs or more, which must
    not stand in a string or name. What needs neither is left to the library.
    """

    def __init__(self, definitions: Mapping[str, Any], parts: Parts, names: tuple[str, str, str], never: str) -> None:
        self._definitions, self._parts = definitions, parts
        self._names: dict[Any, str] = dict(zip((None, True, False), names, strict=True))
        self._never = never
        self._apart = {"string"} if never else {"null", "boolean"}
        self._made: dict[str, str] = {}  # rules of definitions; empty while they are made

    def rule(self, schema: Any) -> str:
        """Raises GrammarError for what can't be enforced."""
        if schema is True or schema == {}:
            return self._anything()
        if schema is False:
            raise impossible("properties")
        if not self._is_apart(schema, frozenset()):
            return self._json(schema)
        if "$ref" in schema:
            _require(schema, "$ref")
            return self._referred(schema["$ref"])
        if "enum" in schema or "const" in schema:
            _require(schema, "enum" if "enum" in schema else "const", "type")
            return either([quoted(self._written(value)) for value in _values(schema)])
        if "anyOf" in schema:
            _require(schema, "anyOf")
            return either([self.rule(one) for one in schema["anyOf"]])
        return self._of_kind(schema, schema.get("type", _kinds(schema)))

    def _json(self, schema: Mapping[str, Any]) -> str:
        return self._parts.schema({**schema, "$defs": self._definitions} if self._definitions else schema)

    def _anything(self) -> str:
        text = self.rule({"type": "string"})
        pair = f'{text} WS? ":" WS? anything'
        lists = f'"[" (anything ("," WS? anything)*)? "]" | "{{" ({pair} ("," WS? {pair})*)? "}}"'
        constants = " | ".join(map(quoted, self._names.values()))
        return self._parts.only("anything", f"{text} | {self.rule({'type': 'number'})} | {constants} | {lists}")

    def _referred(self, name: str) -> str:
        if name not in self._made:
            self._made[name] = ""
            self._made[name] = self._parts.rule("value", self.rule(self._definition(name)))
        if not self._made[name]:  # it is a part of itself
            raise impossible("$ref")
        return self._made[name]

    def _definition(self, name: str) -> Any:
        return self._definitions[name.removeprefix("#/$defs/")]

    def _of_kind(self, schema: Mapping[str, Any], kind: str | list[str]) -> str:
        if isinstance(kind, list):
            return either([self.rule({**schema, "type": one}) for one in kind])
        if kind in ("number", "integer", "string"):
            return self._json(schema if kind != "string" or not self._never else self._without_never(schema))
        if "allOf" in schema:
            raise impossible("allOf")
        if kind in ("array", "object"):
            return self._array(schema) if kind == "array" else self._object(schema)
        if kind == "null":
            return quoted(self._names[None])
        return either([quoted(self._names[value]) for value in (True, False)])

    def _without_never(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        return {"allOf": [schema, {"type": "string", "pattern": _without(self._never)}]}

    def _object(self, schema: Mapping[str, Any]) -> str:
        if others := schema.keys() & {"patternProperties", "minProperties", "maxProperties"}:
            raise impossible(min(others))
        pairs = [(self._pair(quoted(self._written(name)), one), must) for name, one, must in members(schema)]
        if pairs:
            return f'"{{" {sequence(pairs, self._parts)} "}}"'
        if (inner := schema.get("additionalProperties", True)) is False:
            return '"{}"'
        pair = self._pair(self.rule({"type": "string"}), inner)
        return f'"{{" ({pair} ("," WS? {pair})*)? "}}"'

    def _pair(self, name: str, schema: Any) -> str:
        return f'{name} WS? ":" WS? {self.rule(schema)}'

    def _array(self, schema: Mapping[str, Any]) -> str:
        if "prefixItems" in schema:
            raise impossible("prefixItems")
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        empty = most == 0 or schema.get("items") is False
        if least > (0 if empty else most or least):
            raise GrammarError("minItems", f"minItems is {least}, but no array with as many items fits")
        if empty:
            return '"[]"'
        item = self._parts.rule("element", self.rule(schema.get("items", True)))
        some = f"{item} " + repeated(f'"," WS? {item}', max(least - 1, 0), None if most is None else most - 1)
        return f'"[" {some} "]"' if least else f'"[" ({some})? "]"'

    def _written(self, value: Any) -> str:
        if isinstance(value, dict):
            return (
                "{" + ", ".join(f"{self._written(name)}: {self._written(one)}" for name, one in value.items()) + "}"
            )
        if isinstance(value, list):
            return f"[{', '.join(map(self._written, value))}]"
        if isinstance(value, bool) or value is None:
            return self._names[value]
        if isinstance(value, str) and self._never and self._never in value:
            raise GrammarError("enum", f"{value[:80]!r} can't be written in the form of this model's calls")
        return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)

    # what needs to be written here

    def _is_apart(self, schema: Any, seen: frozenset[str]) -> bool:
        if not isinstance(schema, Mapping):
            return bool(schema)
        if "$ref" in schema and (name := schema["$ref"]) not in seen:
            return self._is_apart(self._definition(name), seen | {name})
        if "enum" in schema or "const" in schema:
            return any(map(self._is_value_apart, _values(schema)))
        inside = [*schema.get("anyOf", ()), *schema.get("allOf", ())]
        implied = "type" not in schema and bool({"anyOf", "$ref"} & schema.keys())
        kinds = set() if implied else types_of(schema, _KINDS)
        if "array" in kinds:
            inside += [*schema.get("prefixItems", ()), schema.get("items", True)]
        if "object" in kinds:
            inside += [*schema.get("properties", {}).values(), *schema.get("patternProperties", {}).values()]
            inside.append(schema.get("additionalProperties", True))
            if self._never and self._has_names_apart(schema):
                return True
        return not kinds.isdisjoint(self._apart) or any(self._is_apart(one, seen) for one in inside)

    def _has_names_apart(self, schema: Mapping[str, Any]) -> bool:
        listed = schema.get("additionalProperties", True) is False and "patternProperties" not in schema
        return not listed or any(self._never in name for name in schema.get("properties", ()))

    def _is_value_apart(self, value: Any) -> bool:
        if isinstance(value, dict):
            return any(map(self._is_value_apart, (*value, *value.values())))
        if isinstance(value, list):
            return any(map(self._is_value_apart, value))
        if self._never:
            return isinstance(value, str) and self._never in value
        return value is None or isinstance(value, bool)


def _require(schema: Mapping[str, Any], *only: str) -> None:
    if others := schema.keys() - set(only):
        raise impossible(min(others))


def _without(text: str) -> str:
    """Of strings in which the first two signs of a text are not next to one another."""
    one, two = map(literal, text[:2])
    return f"^(?:{one}?[^{one}])*{one}?$" if one == two else f"^(?:[^{one}]|{one}+[^{one}{two}])*{one}*$"


def _kinds(schema: Mapping[str, Any]) -> list[str]:
    """Where a schema says none."""
    array, an_object = "items" in schema or "prefixItems" in schema, "properties" in schema
    return [*_KINDS[:4], *["array"] * array, *["object"] * an_object]


def _values(schema: Mapping[str, Any]) -> list[Any]:
    """Of a constant, or of those that are listed, what has the type."""
    values = schema["enum"] if "enum" in schema else [schema["const"]]
    wanted = types_of(schema, _KINDS)
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
