"""Functions that build JSON Schemas. Every call returns a new schema."""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]

_LARGEST: Final = 1e300  # `pipeline.front.api.fields` accepts no number beyond it
_INT64: Final = (-(2**63), 2**64 - 1)  # orjson reads an integer beyond that as a float


def text(meaning: str = "", **more: Any) -> Schema:
    return _with({"type": "string"}, meaning, more)


def integer(meaning: str = "", low: int | None = None, high: int | None = None, **more: Any) -> Schema:
    """Written without a fraction or an exponent."""
    least, most = (edge if given is None else given for edge, given in zip(_INT64, (low, high), strict=True))
    return _with({"type": "integer", "minimum": least, "maximum": most}, meaning, more)


def number(meaning: str = "", low: float = -_LARGEST, high: float = _LARGEST, **more: Any) -> Schema:
    edges = {"maximum": high} if "exclusiveMinimum" in more else {"minimum": low, "maximum": high}
    return _with({"type": "number", **edges}, meaning, more)


def boolean(meaning: str = "", **more: Any) -> Schema:
    return _with({"type": "boolean"}, meaning, more)


def array(items: Schema, meaning: str = "", **more: Any) -> Schema:
    return _with({"type": "array", "items": items}, meaning, more)


def mapping(values: Schema | bool, meaning: str = "", **more: Any) -> Schema:
    """An object whose keys the client chooses."""
    return _with({"type": "object", "additionalProperties": values}, meaning, more)


def any_of(*schemas: Schema, meaning: str = "", **more: Any) -> Schema:
    return _with({"anyOf": list(schemas)}, meaning, more)


def only(*values: Any, meaning: str = "", **more: Any) -> Schema:
    """A parameter that is supported at these values only."""
    return _with({"enum": list(values)}, meaning, more)


def one_value(values: tuple[Any, ...]) -> Schema:
    """A row of the parsers' tables of parameters that are known, but not supported."""
    distinct = [value for i, value in enumerate(values) if not any(_same(value, other) for other in values[:i])]
    return only(*distinct, meaning="Supported at this value only." if distinct else "Not supported.")


def _same(value: Any, other: Any) -> bool:
    """As JSON values: 1 equals 1.0, but not true."""
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def record(properties: dict[str, Schema], required: list[str] | None = None, meaning: str = "") -> Schema:
    """An object of an answer; all properties are required unless `required` names fewer."""
    names = list(properties) if required is None else required
    schema = {"type": "object", "properties": properties, "required": names, "additionalProperties": False}
    return _with(schema, meaning, {})


def body(properties: dict[str, Schema], required: list[str], meaning: str = "") -> Schema:
    """An object of a request: null counts as left out, known or not; unknown properties are refused."""
    named = {name: schema if name in required else nullable(schema) for name, schema in properties.items()}
    schema = {"type": "object", "properties": named, "required": required, "additionalProperties": {"type": "null"}}
    return _with(schema, meaning, {})


def nullable(schema: Schema) -> Schema:
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None]}
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    if "type" in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _with(schema: Schema, meaning: str, more: dict[str, Any]) -> Schema:
    described = {"description": meaning} if meaning else {}
    return {**schema, **more, **described}
