"""What rules of a Lark grammar are put together from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from model.grammar.errors import GrammarError
from model.response.format import Calls, Mark

_BLANK: Final = r"\x20?"  # between two tokens of arguments: models write them in one line

Tool = tuple[str, Mapping[str, Any] | str]
"""A name, and the schema of the arguments, an object, or the reference to the grammar of a text."""


@dataclass(slots=True)
class Parts:
    """What a main grammar gets besides its first rule: more rules, and grammars that they refer to. `nested` makes
    the grammar of a kind and value."""

    nested: Callable[[str, Any], dict[str, Any]]
    rules: list[str] = field(default_factory=list)
    others: list[dict[str, Any]] = field(default_factory=list)

    def beside(self, name: str, grammar: dict[str, Any]) -> str:
        """The reference to it."""
        self.others.append({"name": name, **grammar})
        return f"@{name}"

    def schema(self, schema: Any) -> str:
        """The reference to a schema's grammar."""
        made: dict[str, Any] = self.nested("json_schema", schema)["json_schema"]
        options = made["x-guidance"] | {"whitespace_pattern": _BLANK}
        return self.beside(f"json_{len(self.others)}", {"json_schema": made | {"x-guidance": options}})

    def rule(self, name: str, text: str) -> str:
        """The name, made unique."""
        unique = f"{name}_{len(self.rules)}"
        self.rules.append(f"{unique}: {text}")
        return unique


def quoted(text: str) -> str:
    """A literal. Whatever is in a text, it stays inside of its quotes."""
    return json.dumps(text, ensure_ascii=True)


def start_of(mark: Mark) -> str:
    return quoted(mark.text) if mark.token_id is None else f"<[{mark.token_id}]>"


def closing(form: Calls) -> str:
    return f" WS? {start_of(form.closes[0])}" if form.closes and not form.bare else ""


def either(ways: Sequence[str]) -> str:
    return f"({' | '.join(ways)})"


def schema_of(takes: Mapping[str, Any] | str) -> Mapping[str, Any]:
    """Raises GrammarError for a text."""
    if isinstance(takes, str):
        raise impossible("grammar")
    return takes


def impossible(keyword: str) -> GrammarError:
    return GrammarError(keyword, f"{keyword} can't be enforced in the form of this model's calls")


# ---- parameters one by one ---------------------------------------------------------------------------------------

WRITTEN: Final = frozenset({"type", "properties", "required", "additionalProperties"})
REMARKS: Final = frozenset(
    {
        "title",
        "description",
        "default",
        "examples",
        "$schema",
        "$id",
        "$comment",
        "$defs",
        "definitions",
        "deprecated",
    }
)
"""Keywords of an object whose properties are written one by one, and those that mean nothing."""


def properties(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """Name, schema, and whether it is required. Raises GrammarError for what is more than that."""
    if others := schema.keys() - WRITTEN - REMARKS:
        raise impossible(min(others))
    required, known = schema.get("required", ()), schema.get("properties", {})
    for name in [*known, *(name for name in required if name not in known)]:
        one = known.get(name, True)
        if isinstance(one, Mapping) and "$ref" in one:
            raise impossible("$ref")
        yield name, one, name in required


def is_free(schema: Mapping[str, Any]) -> bool:
    """It says nothing of its properties."""
    known = schema.get("properties") or schema.get("required")
    return not known and schema.get("additionalProperties", True) is True
