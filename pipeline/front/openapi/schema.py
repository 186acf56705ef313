"""Words to write JSON Schemas with. Every function gives a schema of its own, which may be changed."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_LARGEST = 1e300  # `pipeline.front.fields` takes no number beyond it


def text(meaning: str = "", **more: Any) -> Schema:
    return _with({"type": "string"}, meaning, more)


def integer(meaning: str = "", low: int | None = None, high: int | None = None, **more: Any) -> Schema:
    """Written without a fraction or an exponent."""
    return _with({"type": "integer"}, meaning, {"minimum": low, "maximum": high, **more})


def number(meaning: str = "", low: float = -_LARGEST, high: float = _LARGEST, **more: Any) -> Schema:
    return _with({"type": "number"}, meaning, {"minimum": low, "maximum": high, **more})


def boolean(meaning: str = "", **more: Any) -> Schema:
    return _with({"type": "boolean"}, meaning, more)


def array(items: Schema, meaning: str = "", **more: Any) -> Schema:
    return _with({"type": "array", "items": items}, meaning, more)


def mapping(values: Schema, meaning: str = "", **more: Any) -> Schema:
    """An object whose keys the client chooses."""
    return _with({"type": "object", "additionalProperties": values}, meaning, more)


def one_of(*schemas: Schema, meaning: str = "", **more: Any) -> Schema:
    return _with({"oneOf": list(schemas)}, meaning, more)


def only(*values: Any, meaning: str = "", **more: Any) -> Schema:
    """A parameter that is understood, but at these values alone. None stands for null."""
    return _with({"enum": list(values)}, meaning, more)


def record(properties: dict[str, Schema], required: list[str] | None = None, meaning: str = "") -> Schema:
    """An object of an answer: all properties are there unless `required` names fewer."""
    names = list(properties) if required is None else required
    return _with({"type": "object", "properties": properties, "required": names}, meaning, {})


def body(properties: dict[str, Schema], required: list[str], meaning: str = "") -> Schema:
    """An object of a request: what is not required may be null, which counts as left out; more is refused."""
    return _with(
        {
            "type": "object",
            "properties": {
                name: schema if name in required else _nullable(schema) for name, schema in properties.items()
            },
            "required": required,
            "additionalProperties": False,
        },
        meaning,
        {},
    )


def reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _nullable(schema: Schema) -> Schema:
    if "type" in schema and "enum" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None]} if None not in schema["enum"] else schema
    if "$ref" in schema:
        return {"oneOf": [schema, {"type": "null"}]}
    return {**schema, "oneOf": [*schema["oneOf"], {"type": "null"}]}


def _with(schema: Schema, meaning: str, more: dict[str, Any]) -> Schema:
    schema |= {name: value for name, value in more.items() if value is not None}
    return {**schema, "description": meaning} if meaning else schema
