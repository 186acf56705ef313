"""Whether no value fits two branches of a `oneOf`, as far as their types, constants and required names tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from model.grammar.errors import GrammarError, child

Definitions = Mapping[str, dict[str, Any] | bool]
ALL = frozenset({"null", "boolean", "number", "string", "array", "object"})
DEPTH = 12


def require_disjoint(
    branches: list[dict[str, Any] | bool], siblings: dict[str, Any], definitions: Definitions, pointer: str
) -> None:
    """Raise GrammarError for two branches that may overlap. ``siblings``: what stands beside the `oneOf`."""
    facts = [_facts({"allOf": [branch, siblings]}, definitions, DEPTH) for branch in branches]
    for second in range(len(facts)):
        for first in range(second):
            if not _apart(facts[first], facts[second], definitions, DEPTH):
                raise GrammarError(
                    "oneOf",
                    f"branches {first} and {second} of oneOf may overlap; use anyOf, or give every branch a type, a "
                    "const, or a required property with a const, that no other has",
                    child(pointer, second),
                )


@dataclass(slots=True)
class _Facts:
    """What every value of a schema has; less is known than is true."""

    types: frozenset[str] = ALL
    values: list[Any] | None = None  # it is one of these
    properties: dict[str, list[Any]] = field(default_factory=dict)  # of an object: schemas that a property must fit
    required: set[str] = field(default_factory=set)
    names: frozenset[str] | None = None  # of an object: no others are allowed


def _facts(schema: Any, definitions: Definitions, depth: int) -> _Facts:
    if not isinstance(schema, dict) or depth == 0:
        return _Facts(types=frozenset() if schema is False else ALL)
    facts = _own_facts(schema)
    parts = list(schema.get("allOf", ()))
    if "$ref" in schema:
        parts.append(definitions.get(schema["$ref"].removeprefix("#/$defs/"), True))
    for part in parts:
        _join(facts, _facts(part, definitions, depth - 1))
    if "anyOf" in schema:
        either = [_facts(part, definitions, depth - 1).types for part in schema["anyOf"]]
        facts.types &= frozenset().union(*either)
    return facts


def _own_facts(schema: dict[str, Any]) -> _Facts:
    facts = _Facts(required=set(schema.get("required", ())))
    if "type" in schema:
        named = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        facts.types = frozenset("number" if name == "integer" else name for name in named)
    if "const" in schema or "enum" in schema:
        facts.values = [schema["const"]] if "const" in schema else list(schema["enum"])
        facts.types &= frozenset(_type(value) for value in facts.values)
    facts.properties = {name: [inner] for name, inner in schema.get("properties", {}).items()}
    if schema.get("additionalProperties") is False and not schema.get("patternProperties"):
        facts.names = frozenset(facts.properties)
    return facts


def _join(facts: _Facts, more: _Facts) -> None:
    facts.types &= more.types
    if more.values is not None:
        known = facts.values
        facts.values = more.values if known is None else [value for value in known if _contains(more.values, value)]
    if more.names is not None:
        facts.names = more.names if facts.names is None else facts.names & more.names
    for name, inner in more.properties.items():
        facts.properties.setdefault(name, []).extend(inner)
    facts.required |= more.required


def _apart(one: _Facts, other: _Facts, definitions: Definitions, depth: int) -> bool:
    if not one.types & other.types:
        return True
    if one.values is not None and other.values is not None:
        return not any(_contains(other.values, value) for value in one.values)
    if depth <= 0 or one.types & other.types != {"object"}:
        return False
    if not _allows(one, other.required) or not _allows(other, one.required):
        return True
    return any(_property_apart(one, other, name, definitions, depth) for name in one.required | other.required)


def _allows(facts: _Facts, names: set[str]) -> bool:
    return facts.names is None or names <= facts.names


def _property_apart(one: _Facts, other: _Facts, name: str, definitions: Definitions, depth: int) -> bool:
    left, right = ({"allOf": facts.properties.get(name, [True])} for facts in (one, other))
    known = [_facts(side, definitions, depth - 1) for side in (left, right)]
    return _apart(known[0], known[1], definitions, depth - 4)


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    kinds = {type(None): "null", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return kinds[type(value)]


def _contains(values: list[Any], wanted: Any) -> bool:
    return any(_type(value) == _type(wanted) and value == wanted for value in values)
