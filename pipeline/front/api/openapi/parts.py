"""Of what schemas of answers are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipeline.front.api.schema import REFERENCE, Schema

TEXT: Final[Schema] = {"type": "string"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
NULL: Final[Schema] = {"type": "null"}
LOGPROB: Final[Schema] = {"type": "number", "minimum": -9999, "maximum": 0}


def reference(name: str) -> Schema:
    return {"$ref": REFERENCE + name}


def record(optional: Mapping[str, Schema] | None = None, **members: Schema) -> Schema:
    """An object of which nothing is left out but what is `optional`."""
    properties = {**members, **(optional or {})}
    return {"type": "object", "properties": properties, "required": list(members), "additionalProperties": False}


def list_of(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, NULL]}


def one_of(*values: Any) -> Schema:
    return {"enum": list(values)}
