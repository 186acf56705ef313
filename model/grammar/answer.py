"""Grammars of whole answers: reasoning in front, then calls of tools, or a text that has a form of its own.

Everything is one Lark grammar; schemas of arguments and the text's form are grammars beside it, which it refers to. A
mark that is a token of the vocabulary is written as that token, so that text can't spell it; one that is text ends a
lazy lexeme, so that whatever spells it has begun a call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from model.grammar.call_syntax import LISTED, WRITERS
from model.grammar.errors import GrammarError
from model.grammar.rules import Parts, quoted, start_of
from model.response.format import Calls, Mark, ResponseFormat

MOST_CALLS: Final = 32
"""Of an answer that has to call: a model must not go on for ever."""

Nested = Callable[[str, Any], dict[str, Any]]
"""The grammar of a kind and value, as an entry of the library's list."""


class ReasoningShape(Enum):
    """Whether the answer begins with reasoning. OPEN: inside of it, because the prompt has opened it."""

    NONE = "none"
    MAY = "may"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class ToolShape:
    """`parameters`: a JSON schema, or None: any object. `grammar`: kind ("lark" or "regex") and definition of a
    custom tool's input, which stands in the call as it is."""

    name: str
    parameters: Any = None
    grammar: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class AnswerShape:
    """`least` and `most` calls of `tools`; `most` None: any number. `text`: free text may stand around calls, or
    before the only one. `body`: kind and value of the grammar that the answer has if it calls nothing."""

    format: ResponseFormat
    reasoning: ReasoningShape = ReasoningShape.NONE
    tools: tuple[ToolShape, ...] = ()
    least: int = 0
    most: int | None = None
    text: bool = False
    body: tuple[str, Any] | None = None


def answer_grammars(shape: AnswerShape, nested: Nested) -> list[dict[str, Any]]:
    """The library's list of grammars, the main one first. Raises GrammarError that says which tool is to blame."""
    parts = Parts(nested)
    choices = [*_calls(shape, parts)] if shape.tools else []
    if shape.body is not None:
        choices.append(parts.beside("body", nested(*shape.body)))
    begin = _reasoning(shape)
    rules = [f"start: {begin}({' | '.join(choices)})", *parts.rules, *_common(shape)]
    return [{"lark_grammar": "\n".join(rules)}, *parts.others]


def _common(shape: AnswerShape) -> Iterable[str]:
    yield r"WS: /[ \t]|\r?\n/"
    yield r"TEXT: /(.|\n)+/"
    if shape.reasoning is not ReasoningShape.NONE:
        yield from _until("thoughts", _reasoning_marks(shape)[1])


def _until(name: str, marks: Iterable[Mark]) -> Iterable[str]:
    """Rules of any text up to one of these marks."""
    tokens = [f"<[{mark.token_id}]>" for mark in marks if mark.token_id is not None]
    texts = [quoted(mark.text) for mark in marks if mark.token_id is None]
    ways = [f"TEXT? ({' | '.join(tokens)})"] if tokens else []
    if texts:
        ways.append(f"{name}_text")
        yield f"{name}_text[lazy]: /(.|\\n)*/ ({' | '.join(texts)})"
    yield f"{name}: {' | '.join(ways)}"


def _reasoning_marks(shape: AnswerShape) -> tuple[tuple[Mark, ...], tuple[Mark, ...]]:
    reasoning = shape.format.reasoning
    if reasoning is None:
        raise GrammarError("reasoning", "the model's format has no reasoning")
    return reasoning.opens, reasoning.closes


def _reasoning(shape: AnswerShape) -> str:
    if shape.reasoning is ReasoningShape.NONE:
        return ""
    if shape.reasoning is ReasoningShape.OPEN:
        return "thoughts WS? WS? "
    return f"(({' | '.join(map(start_of, _reasoning_marks(shape)[0]))}) thoughts WS? WS?)? "


# ---- calls -------------------------------------------------------------------------------------------------------


def _calls(shape: AnswerShape, parts: Parts) -> Iterable[str]:
    """Ways to begin behind the reasoning."""
    form, more = shape.format.calls[0], (MOST_CALLS if shape.most is None else shape.most) - 1
    behind = WRITERS[form.syntax](form, _tools(shape, parts), parts, more)
    parts.rules.append(f"call: {behind}")
    if form.syntax in LISTED:
        more = 0
    mark = "" if form.bare else start_of(form.opens[0])
    if not shape.text or form.bare:
        between = quoted(form.between) if form.between else "WS? WS?"
        yield f"{mark} call" + (f" ({between} {mark} call){{0,{more}}}" if more else "")
        if shape.text:
            parts.rules.append(r"prose: /\s*[^\s\[{](.|\n)*/")
            yield "prose?"
    else:
        yield _amid_text(form, parts, more)


def _tools(shape: AnswerShape, parts: Parts) -> list[tuple[str, Mapping[str, Any] | str]]:
    """Names, with their schemas; a custom tool's, with the name of the grammar of its input."""
    tools: list[tuple[str, Mapping[str, Any] | str]] = []
    for index, tool in enumerate(shape.tools):
        try:
            if tool.grammar is not None:
                tools.append((tool.name, parts.beside(f"input_{index}", parts.nested(*tool.grammar))))
            else:
                tools.append((tool.name, _arguments(tool.parameters, parts)))
        except GrammarError as error:
            raise GrammarError(error.keyword, f"of the tool {tool.name!r}, {error}") from error
    return tools


def _arguments(parameters: Any, parts: Parts) -> Mapping[str, Any]:
    schema = {} if parameters is None else parameters
    if not isinstance(schema, Mapping):
        raise GrammarError("parameters", "parameters must be a JSON schema, an object")
    if schema.get("type", "object") != "object":
        raise GrammarError("type", f"parameters have the type {schema['type']!r}; arguments are an object", "#/type")
    whole = closed({**schema, "type": "object"})
    parts.nested("json_schema", whole)  # whatever of it is written, all of it must be possible
    return whole


_COMBINES: Final = frozenset({"allOf", "anyOf", "oneOf", "$ref", "if", "patternProperties", "additionalProperties"})
_INSIDE: Final = ("properties", "$defs", "definitions")


def closed(schema: Any) -> Any:
    """Objects have the properties that the schema lists, and no others unless it speaks of them: what a tool has no
    name for would only confuse it, and a weak model might add to its arguments for ever."""
    if not isinstance(schema, Mapping):
        return schema
    known = dict(schema)
    for name in _INSIDE:
        if isinstance(known.get(name), Mapping):
            known[name] = {key: closed(one) for key, one in known[name].items()}
    if isinstance(known.get("items"), Mapping):
        known["items"] = closed(known["items"])
    if isinstance(known.get("anyOf"), list):
        known["anyOf"] = [closed(one) for one in known["anyOf"]]
    if known.get("properties") and not known.keys() & _COMBINES:
        known["additionalProperties"] = False
    return known


def _amid_text(form: Calls, parts: Parts, more: int) -> str:
    """Free text, in which no mark stands without its call."""
    parts.rules += ["tail: TEXT", *_until("lead", form.opens)]
    return "(lead call)* tail?" if more else "(lead call | tail?)"
