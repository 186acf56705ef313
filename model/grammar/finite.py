"""Whether a schema has a value that ends: `$ref` must not lead to itself for nothing, or for ever."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from model.grammar.errors import GrammarError

Schema = dict[str, Any] | bool


def require_finite(root: Schema, definitions: Mapping[str, Schema]) -> None:
    """Raise GrammarError for a `$ref` that stands for itself, and for a schema whose every value is endless."""
    edges = {name: set(_in_place(definition)) for name, definition in definitions.items()}
    done: set[str] = set()
    while more := {name for name in edges if name not in done and edges[name] <= done}:
        done |= more
    if len(done) < len(edges):
        raise GrammarError("$ref", "a $ref leads back to itself without a property or item between", "#")
    ends: set[str] = set()
    while more := {name for name in definitions if name not in ends and _can_end(definitions[name], ends)}:
        ends |= more
    if not _can_end(root, ends):
        raise GrammarError("$ref", "required properties or items refer to themselves: no finite value fits", "#")


def _in_place(schema: Schema) -> Iterator[str]:
    """The definitions that apply to the same value."""
    if not isinstance(schema, dict):
        return
    if "$ref" in schema:
        yield schema["$ref"].removeprefix("#/$defs/")
    for keyword in ("allOf", "anyOf"):
        for part in schema.get(keyword, ()):
            yield from _in_place(part)


def _can_end(schema: Schema, ends: set[str]) -> bool:
    """Of the definitions, those in ``ends`` have a finite value."""
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema and schema["$ref"].removeprefix("#/$defs/") not in ends:
        return False
    if not all(_can_end(part, ends) for part in schema.get("allOf", ())):
        return False
    if "anyOf" in schema and not any(_can_end(part, ends) for part in schema["anyOf"]):
        return False
    if "const" in schema or "enum" in schema:
        return True
    return _structure_ends(schema, ends)


def _structure_ends(schema: dict[str, Any], ends: set[str]) -> bool:
    types = schema.get("type", ["null"])
    types = types if isinstance(types, list) else [types]
    if types == ["object"]:
        properties = schema.get("properties", {})
        return all(_can_end(properties.get(name, True), ends) for name in schema.get("required", ()))
    if types == ["array"]:
        prefix = schema.get("prefixItems", [])[: schema.get("minItems", 0)]
        more = schema.get("minItems", 0) > len(prefix)
        return all(_can_end(part, ends) for part in prefix) and (
            not more or _can_end(schema.get("items", True), ends)
        )
    return True
