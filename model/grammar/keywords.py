"""The keywords of JSON Schema: which are known, which are refused, and the shapes of the simplest."""

from __future__ import annotations

import re
from typing import Any

from model.grammar.errors import GrammarError, child
from model.grammar.limits import LIMITS

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
DRAFT = re.compile(r"https?://json-schema\.org/(?:draft[-/](04|06|07|2019-09|2020-12)/)?(?:hyper-)?schema#?")
LITERALS = re.compile(r"\^(?:([\w-]+)|\((?:\?:)?([\w-]+(?:\|[\w-]+)*)\))\$", re.ASCII)
UNSUPPORTED = {  # and the values with which they say nothing
    "not": (False,),
    "if": (),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
    "dependencies": ({},),
    "uniqueItems": (False,),
    "contains": (),
    "propertyNames": (True, {}),
    "unevaluatedItems": (True, {}),
    "unevaluatedProperties": (True, {}),
    "$dynamicRef": (),
    "$recursiveRef": (),
    "extends": (),
    "disallow": (),
}
APPLICATORS = ("const", "enum", "allOf", "anyOf", "oneOf", "$ref")
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def draft_of(document: dict[str, Any]) -> str:
    named = document.get("$schema", "https://json-schema.org/draft/2020-12/schema")
    found = DRAFT.fullmatch(named) if isinstance(named, str) else None
    if found is None:
        raise GrammarError(
            "$schema", f"$schema {str(named)[:80]!r} is none of drafts 4, 6, 7, 2019-09, 2020-12", "#/$schema"
        )
    return found[1] or "2020-12"


def literal_names(pattern: str) -> list[str]:
    """The names that a pattern like ``^(a|b)$`` stands for; none for one of another form."""
    found = LITERALS.fullmatch(pattern)
    return (found[1] or found[2]).split("|") if found else []


def same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and bool(left == right)


def type_names(value: Any, pointer: str) -> str | list[str]:
    names = value if isinstance(value, list) else [value]
    unknown = [str(name) for name in names if name not in TYPES]
    if unknown or not names:
        raise GrammarError("type", f"type {', '.join(unknown)[:40] or '[]'} is none of {', '.join(TYPES)}", pointer)
    return list(dict.fromkeys(names)) if len(names) > 1 else str(names[0])


def required_names(value: Any, pointer: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise GrammarError("required", "required must be an array of strings", pointer)
    LIMITS.require("max_properties", len(value), "required", pointer)
    return list(dict.fromkeys(value))


def require_countable(found: dict[str, Any], pointer: str) -> None:
    """A name may come twice among those that the schema does not list, which counts once."""
    missing = found.get("minProperties", 0) - len(found.get("required", ()))
    closed = found.get("additionalProperties") is False and not found.get("patternProperties")
    if missing > 1 and not closed:
        raise GrammarError(
            "minProperties",
            f"minProperties asks for {missing} names that required does not list; at most 1 can be enforced",
            child(pointer, "minProperties"),
        )
