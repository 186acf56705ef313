"""What rules of a Lark grammar are put together from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from model.grammar.errors import GrammarError
from model.response.format import Calls, Mark

_BLANK: Final = r"\x20?"  # between two tokens of arguments: models write them in one line
_NAME: Final = re.compile(r"[\w.:/\-]+")  # needs no quotes around it


Bounds = tuple[int, int]
"""The least and the most calls."""


def types_of(schema: Mapping[str, Any], otherwise: str | Sequence[str]) -> set[str]:
    """Those that it names; `otherwise` where it names none."""
    types = schema.get("type", otherwise)
    return {types} if isinstance(types, str) else set(types)


@dataclass(frozen=True, slots=True)
class Tool:
    """`schema`: of the arguments, canonical. `declared`: as the client has it, whose types say how texts are read.
    `text`: of a custom tool, which has no schema: the rule of its input and of the line that ends it."""

    name: str
    schema: Mapping[str, Any] = field(default_factory=dict)
    declared: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""


@dataclass(slots=True)
class Parts:
    """What a main grammar gets besides its first rule: more rules, and grammars that they refer to. `nested` makes
    the grammar of a kind and value. What is equal is there once."""

    nested: Callable[[str, Any], dict[str, Any]]
    _rules: dict[str, str] = field(default_factory=dict)  # names, by what they stand for
    _others: dict[str, str] = field(default_factory=dict)

    @property
    def rules(self) -> list[str]:
        return [f"{name}{text}" for text, name in self._rules.items()]

    @property
    def others(self) -> list[dict[str, Any]]:
        return [{"name": name, **json.loads(grammar)} for grammar, name in self._others.items()]

    def beside(self, grammar: Mapping[str, Any]) -> str:
        """The reference to it."""
        written = json.dumps(grammar)
        return "@" + self._others.setdefault(written, f"other_{len(self._others)}")

    def canonical(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Without the library's options. Raises GrammarError."""
        made: dict[str, Any] = self.nested("json_schema", schema)["json_schema"]
        return {keyword: value for keyword, value in made.items() if keyword != "x-guidance"}

    def schema(self, canonical: Mapping[str, Any]) -> str:
        """The reference to a schema's grammar."""
        options = self.nested("json_object", None)["json_schema"]["x-guidance"]
        return self.beside({"json_schema": {**canonical, "x-guidance": {**options, "whitespace_pattern": _BLANK}}})

    def rule(self, name: str, text: str) -> str:
        """A rule's, or a terminal's, name, made unique."""
        return self._named(name, f": {text}")

    def only(self, name: str, text: str) -> str:
        """A rule's name that it may refer to itself by: there is one of that name."""
        self._rules[f": {text}"] = name
        return name

    def lazy(self, name: str, text: str) -> str:
        """Of a rule that ends as soon as it can."""
        return self._named(name, f"[lazy]: {text}")

    def _named(self, name: str, text: str) -> str:
        unique = f"{name}_{len(self._rules)}"
        return self._rules.setdefault(text, unique.upper() if name.isupper() else unique)


def quoted(text: str) -> str:
    """A literal. Whatever is in a text, it stays inside of its quotes."""
    return json.dumps(text, ensure_ascii=True)


def start_of(mark: Mark) -> str:
    return quoted(mark.text) if mark.token_id is None else f"<[{mark.token_id}]>"


def closing(form: Calls) -> str:
    return f" WS? {start_of(form.closes[0])}" if form.closes and not form.bare else ""


def either(ways: Sequence[str]) -> str:
    return f"({' | '.join(ways)})"


def repeated(one: str, least: int, most: int | None) -> str:
    return "" if most == 0 else f"({one}){{{least},{'' if most is None else most}}}"


def listed(one: str, bounds: Bounds, parts: Parts) -> str:
    item, (least, most) = parts.rule("item", one), bounds
    behind = f'"," WS? {item}'
    return f"{item} {repeated(behind, least - 1, most - 1)}"


def sequence(items: Sequence[tuple[str, bool]], parts: Parts) -> str:
    """In this order, with commas between them; those that are required (true) all, others perhaps."""
    first = next((at for at, (_, must) in enumerate(items) if must), None)
    if first is not None:
        before = "".join(f'({one} "," WS?)? ' for one, _ in items[:first])
        return before + items[first][0] + "".join(map(_behind, items[first + 1 :]))
    rest, ways = "", ""
    for one, _ in reversed(items):
        ways = parts.rule("from", f"{one}{rest}" + (f" | {ways}" if ways else ""))
        rest = f" {parts.rule('rest', _behind((one, False)) + rest)}"
    return f"({ways})?" if ways else '""'


def _behind(item: tuple[str, bool]) -> str:
    return f' ("," WS? {item[0]})' + ("" if item[1] else "?")


def plain_name(tool: Tool) -> str:
    """Raises GrammarError for a name that could not be read where nothing is around it, and for a custom tool."""
    if not _NAME.fullmatch(tool.name):
        told = "can only have letters, digits and _ - . : / in the form of this model's calls"
        raise GrammarError("name", f"the name {told}")
    if tool.text:
        raise impossible("grammar")
    return tool.name


def each(tools: Sequence[Tool], write: Callable[[Tool], str]) -> str:
    """What is written for one of them."""
    ways = []
    for tool in tools:
        try:
            ways.append(write(tool))
        except GrammarError as error:
            raise blamed(tool.name, error) from error
    return either(ways)


def blamed(tool: str, error: GrammarError) -> GrammarError:
    return GrammarError(error.keyword, f"of the tool {tool!r}, {error}")


def impossible(keyword: str) -> GrammarError:
    return GrammarError(keyword, f"{keyword} can't be enforced in the form of this model's calls")


# ---- parameters one by one ---------------------------------------------------------------------------------------

OF_OBJECTS: Final = frozenset({"type", "properties", "required", "additionalProperties"})


def properties(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """Name, schema, and whether it is required. Raises GrammarError for what is more than that."""
    if others := schema.keys() - OF_OBJECTS - {"$defs"}:
        raise impossible(min(others))
    yield from members(schema)


def members(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """The same of any object, whatever else its schema says."""
    required, known = schema.get("required", ()), schema.get("properties", {})
    for name in [*known, *(name for name in required if name not in known)]:
        yield name, known.get(name, schema.get("additionalProperties", True)), name in required


def is_free(schema: Mapping[str, Any]) -> bool:
    """It says nothing of its properties."""
    return (
        schema.keys() <= {"type", "additionalProperties", "$defs"}
        and schema.get("additionalProperties", True) is True
    )
