"""JSON Schemas of pydantic models, with limits that are known only when a model is served, and as words for errors.

pydantic makes a schema once per class. What depends on the settings stands in it as a function, which `filled` calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from pipeline.front.settings import FrontSettings

Schema = dict[str, Any]

MADE: Final = "x-made"  # its value: settings → further members of the schema
WORDS: Final = "x-words"  # what an error says is expected, where that can be told better than by `in_words`
LARGEST: Final = 1e300  # no number beyond it is accepted
LEAST_INT: Final = -(2**63)
MOST_INT: Final = 2**64 - 1  # orjson reads an integer beyond these as a float
REFERENCE: Final = "#/components/schemas/"
_ABOUT: Final = ("description", "default", WORDS)
_NULL: Final[Schema] = {"type": "null"}
_NOUNS: Final = {
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "string": "a string",
    "array": "a list",
    "object": "an object",
}


class _Generator(GenerateJsonSchema):
    """Without titles, which would only repeat the names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def schemas(kinds: Sequence[type[BaseModel]], settings: FrontSettings) -> dict[str, Schema]:
    """Of these and of whatever is in them, by name, with limits."""
    made: dict[str, Schema] = filled(_definitions(tuple(kinds)), settings)
    return made


@cache
def _definitions(kinds: tuple[type[BaseModel], ...]) -> dict[str, Schema]:
    both = [(kind, "validation") for kind in kinds]
    template = REFERENCE + "{model}"
    _, found = models_json_schema(both, ref_template=template, schema_generator=_Generator)  # type: ignore[arg-type]
    definitions: dict[str, Schema] = found["$defs"]
    for one in definitions.values():
        one.pop("title", None)
    return definitions


def filled(node: Any, settings: FrontSettings, *, words: bool = False) -> Any:
    """A copy without functions, without `WORDS` unless they are wanted, and without an anyOf in an anyOf."""
    if isinstance(node, list):
        return [filled(one, settings, words=words) for one in node]
    if not isinstance(node, dict):
        return node
    kept = {name: one for name, one in _made(node, settings).items() if words or name != WORDS}
    made = {name: filled(one, settings, words=words) for name, one in kept.items()}
    return _flat(made) if isinstance(made.get("anyOf"), list) else made


def _flat(schema: Schema) -> Schema:
    """What is said of one choice of an anyOf is said of all; a type or null is one schema."""
    about: Schema = {name: one.pop(name) for one in schema["anyOf"] for name in _ABOUT if name in one}
    choices = [one for choice in schema["anyOf"] for one in _choices(choice)]
    first, *others = choices
    if others == [_NULL] and "type" in first and not first.keys() & {"enum", "const"}:
        outside = {name: one for name, one in schema.items() if name != "anyOf"}
        return {**first, "type": [first["type"], "null"], **about, **outside}
    return {**about, **schema, "anyOf": choices}


def _made(schema: Schema, settings: FrontSettings) -> Schema:
    if MADE not in schema:
        return schema
    rest = {name: one for name, one in schema.items() if name != MADE}
    return {**schema[MADE](settings), **rest}


def _choices(schema: Schema) -> list[Schema]:
    return schema["anyOf"] if schema.keys() == {"anyOf"} else [schema]


def nullable(schema: Schema, absent: tuple[Any, ...]) -> Schema:
    """May also have values that count as left out."""
    outside = {name: schema[name] for name in _ABOUT if schema.get(name) is not None and "$ref" not in schema}
    inside = {name: one for name, one in schema.items() if name not in _ABOUT}
    choices = [one for one in _choices(inside) if one != _NULL]
    return {"anyOf": [*choices, _NULL if absent == (None,) else {"enum": list(absent)}], **outside}


# ---- of one place --------------------------------------------------------------------------------------------------


def schema_at(kind: type[BaseModel], place: Sequence[int | str], settings: FrontSettings) -> Schema:
    """Of a member of a body, or of what is around it, if there is no such member; with `WORDS`."""
    schema: Schema = {"$ref": REFERENCE + kind.__name__}
    for step in place:
        inner = [one for choice in _resolved(kind, schema, settings) for one in _members(choice, step)]
        if not inner:
            break
        schema = inner[0]
    made: Schema = filled(schema, settings, words=True)
    return made


def names_at(kind: type[BaseModel], place: Sequence[int | str], settings: FrontSettings) -> list[str]:
    """Of the members that an object may have."""
    choices = _resolved(kind, schema_at(kind, place, settings), settings)
    return [name for choice in choices for name in choice.get("properties", ())]


def _resolved(kind: type[BaseModel], schema: Schema, settings: FrontSettings) -> list[Schema]:
    """What it may be, without references."""
    made = _made(schema, settings)
    if "anyOf" in made:
        return [one for choice in made["anyOf"] for one in _resolved(kind, choice, settings)]
    return [_definitions((kind,))[made["$ref"].removeprefix(REFERENCE)] if "$ref" in made else made]


def _members(schema: Schema, step: int | str) -> list[Schema]:
    if isinstance(step, int):
        return [schema["items"]] if "items" in schema else []
    properties, others = schema.get("properties", {}), schema.get("additionalProperties")
    if step in properties:
        return [properties[step]]
    return [others] if isinstance(others, dict) and "type" in others else []  # of an object with any names


def in_words(schema: Schema) -> str:
    """What is accepted, to follow the word "expected"."""
    if WORDS in schema:
        return str(schema[WORDS])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(in_words(one) for one in schema["anyOf"] if not _means_absent(one)))
    if "const" in schema or "enum" in schema:
        return " or ".join(repr(one) for one in schema.get("enum", [schema.get("const")]) if one is not None)
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind  # or null
    return _NOUNS[kind] + (_lengths(schema) if kind in ("string", "array") else _range(schema))


def _means_absent(schema: Schema) -> bool:
    """One of the choices of `nullable`."""
    return schema == _NULL or None in schema.get("enum", ())


def _range(schema: Schema) -> str:
    above = "exclusiveMinimum" in schema
    low, high = schema.get("exclusiveMinimum" if above else "minimum"), schema.get("maximum")
    if high in (None, LARGEST, MOST_INT):
        return "" if low in (None, LEAST_INT) else f" of at least {_figure(low)}"
    return f" in {'(' if above else '['}{_figure(low)}, {_figure(high)}]"


def _figure(number: Any) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def _lengths(schema: Schema) -> str:
    """Of a text in characters, of a list in items."""
    what = "Length" if "string" in schema["type"] else "Items"
    least, most = schema.get(f"min{what}"), schema.get(f"max{what}")
    unit = "characters" if what == "Length" else "items"
    if most is None:
        return "" if not least else f" of at least {least} {unit if least > 1 else unit[:-1]}"
    return f" of {least or 0} to {most} {unit}"
