"""How many ways a value may begin at once: what the parser has to keep in mind behind one token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.grammar.limits import LIMITS

Schema = dict[str, Any] | bool


@dataclass(frozen=True, slots=True)
class _Width:
    branches: int = 1
    properties: int = 1  # of one branch

    @property
    def product(self) -> int:
        return self.branches * self.properties


def require_narrow(root: Schema, definitions: Mapping[str, Schema]) -> None:
    """Raise GrammarError if branches times properties exceed their limit anywhere. No `$ref` leads back in place."""
    known: dict[str, _Width] = {}
    waiting: list[Schema] = [root, *definitions.values()]
    while waiting:
        schema = waiting.pop()
        if isinstance(schema, dict):
            found = _width(schema, definitions, known).product
            LIMITS.require("max_width", found, "branches of anyOf or oneOf, times properties of each")
            waiting += _parts(schema)


def _parts(schema: dict[str, Any]) -> list[Schema]:
    parts = [schema[name] for name in ("items", "additionalProperties") if name in schema]
    for name in ("properties", "patternProperties"):
        parts += schema.get(name, {}).values()
    for name in ("prefixItems", "allOf", "anyOf"):
        parts += schema.get(name, ())
    return parts


def _width(schema: Schema, definitions: Mapping[str, Schema], known: dict[str, _Width]) -> _Width:
    if not isinstance(schema, dict):
        return _Width()
    branches, properties = 1, max(len(schema.get("properties", ())), 1)
    together = [_width(part, definitions, known) for part in schema.get("allOf", ())]
    if "$ref" in schema:
        together.append(_named(schema["$ref"].removeprefix("#/$defs/"), definitions, known))
    if "anyOf" in schema:
        either = [_width(part, definitions, known) for part in schema["anyOf"]]
        together.append(_Width(sum(one.branches for one in either), max(one.properties for one in either)))
    for one in together:
        branches = min(branches * one.branches, 10**6)
        properties += one.properties - 1
    return _Width(branches, properties)


def _named(name: str, definitions: Mapping[str, Schema], known: dict[str, _Width]) -> _Width:
    if name not in known:
        known[name] = _width(definitions[name], definitions, known)
    return known[name]
