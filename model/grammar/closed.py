"""Objects of a tool's arguments have the properties that are listed, unless their schema speaks of others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from model.grammar.limits import LIMITS

_COMBINES: Final = frozenset({"allOf", "anyOf", "oneOf", "$ref", "if", "patternProperties", "additionalProperties"})
_OF_OBJECTS: Final = frozenset({"properties", "required", "minProperties", "maxProperties"})
_NAMED: Final = ("properties", "$defs", "definitions")


def closed(schema: Any, depth: int = 0, *, definitions: bool | None = None) -> Any:
    """A name that the tool does not know would only confuse it, and a weak model might add to its arguments for ever.

    Narrower than what is asked for, never empty: what is combined with other schemas stays open. ``definitions``:
    whether those may be closed; None: unless one of them is combined with something.
    """
    if not isinstance(schema, Mapping) or depth > LIMITS.max_depth:  # which is refused, but not here
        return schema
    if definitions is None:
        definitions = not any(map(_is_combined, _every(schema)))
    known = dict(schema)
    for name in _NAMED if definitions else _NAMED[:1]:
        if isinstance(known.get(name), Mapping):
            known[name] = {key: closed(one, depth + 1, definitions=definitions) for key, one in known[name].items()}
    if isinstance(known.get("items"), Mapping):
        known["items"] = closed(known["items"], depth + 1, definitions=definitions)
    if isinstance(known.get("anyOf"), list) and not known.keys() & (_COMBINES - {"anyOf"} | _OF_OBJECTS):
        known["anyOf"] = [closed(one, depth + 1, definitions=definitions) for one in known["anyOf"]]
    if _lists_all(known):
        known["additionalProperties"] = False
    return known


def _lists_all(schema: Mapping[str, Any]) -> bool:
    properties, required = schema.get("properties"), schema.get("required", ())
    if not properties or not isinstance(properties, Mapping) or not isinstance(required, list | tuple):
        return False
    named = all(isinstance(name, str) and name in properties for name in required)
    return named and not schema.keys() & _COMBINES and "minProperties" not in schema


def _is_combined(schema: Mapping[str, Any]) -> bool:
    """A reference in it may stand beside something else about the same object."""
    refers = "$ref" in schema and bool(schema.keys() & (_COMBINES - {"$ref"} | _OF_OBJECTS))
    return refers or "allOf" in schema or ("anyOf" in schema and bool(schema.keys() & _OF_OBJECTS))


def _every(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Every object in it, deepest last."""
    waiting = [schema]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            yield one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
