"""Grammars of whole answers: reasoning in front, then calls of tools, or a text that has a form of its own.

Everything is one Lark grammar; schemas of arguments and the text's form are grammars beside it, which it refers to. A
mark that is a token of the vocabulary is written as that token, so that text can't spell it; one that is text ends a
lazy lexeme, so that whatever spells it has begun a call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from model.grammar.call_syntax import LISTED, WRITERS
from model.grammar.closed import closed
from model.grammar.errors import GrammarError
from model.grammar.pattern import literal
from model.grammar.rules import Parts, Tool, blamed, impossible, quoted, repeated, start_of
from model.response.format import Calls, Mark, Opened, ResponseFormat, Syntax

MOST_CALLS: Final = 32
"""Of an answer that has to call: a model must not go on for ever."""

Nested = Callable[[str, Any], dict[str, Any]]
"""The grammar of a kind and value, as an entry of the library's list."""


@dataclass(frozen=True, slots=True)
class ToolShape:
    """`parameters`: a JSON schema, or None: any object. `grammar`: kind ("lark" or "regex") and definition of a
    custom tool's input, which stands in the call as it is."""

    name: str
    parameters: Any = None
    grammar: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class AnswerShape:
    """`opened`: by the prompt. `least` and `most` calls of `tools`; `most` None: any number. `text`: free text may
    stand around calls, or before the only one. `body`: kind and value of the grammar that the answer has if it calls
    nothing."""

    format: ResponseFormat
    opened: Opened = Opened.NOTHING
    tools: tuple[ToolShape, ...] = ()
    least: int = 0
    most: int | None = None
    text: bool = False
    body: tuple[str, Any] | None = None


def answer_grammars(shape: AnswerShape, nested: Nested) -> list[dict[str, Any]]:
    """The library's list of grammars, the main one first. Raises GrammarError that says which tool is to blame."""
    parts = Parts(nested)
    choices = [*_calls(shape, parts)] if shape.tools else []
    if shape.body is not None and shape.least == 0:
        choices.append(_begin_text(shape) + _body(shape.body, parts, blames=bool(shape.tools)))
    rules = [f"start: {_reasoning(shape, parts)}({' | '.join(choices)})", r"WS: /[ \t]|\r?\n/"]
    return [{"lark_grammar": "\n".join([*rules, *parts.rules])}, *parts.others]


# ---- texts -------------------------------------------------------------------------------------------------------


def _without(marks: Iterable[Mark], begin: str = r"(?s:.)") -> str:
    """Any text, not an empty one, in which none of these is spelled."""
    spelled = "|".join(literal(mark.text) for mark in marks if mark.token_id is None)
    text = rf"/{begin}(?s:.*)/"
    return f"({text} & ~/(?s:.*)(?:{spelled})(?s:.*)/)" if spelled else text


def _until(marks: Collection[Mark], parts: Parts, never: Collection[Mark] = ()) -> str:
    """The rule of any text up to one of these marks, in which the others are not spelled."""
    tokens = [start_of(mark) for mark in marks if mark.token_id is not None]
    texts = [start_of(mark) for mark in marks if mark.token_id is None]
    ways = [f"{parts.rule('TEXT', _without([*marks, *never]))}? ({' | '.join(tokens)})"] if tokens else []
    if texts:
        ways.append(parts.lazy("until", f'({_without(never)} | "") ({" | ".join(texts)})'))
    return parts.rule("until", " | ".join(ways))


def _begin_text(shape: AnswerShape) -> str:
    """The mark without which a text is no part of the answer, in formats that have one."""
    marks = shape.format.text_opens
    return f"{start_of(marks[0])} " if marks and shape.opened is not Opened.TEXT else ""


def _body(body: tuple[str, Any], parts: Parts, *, blames: bool) -> str:
    """`blames`: there are tools as well, on which a refusal could be blamed."""
    try:
        return parts.beside(parts.nested(*body))
    except GrammarError as error:
        if not blames:
            raise
        raise GrammarError(error.keyword, f"of the answer's text, {error}") from error


def _reasoning(shape: AnswerShape, parts: Parts) -> str:
    reasoning = shape.format.reasoning
    if reasoning is None or shape.opened is Opened.TEXT:
        return ""
    thoughts = f"{_until(reasoning.closes, parts)} WS? WS? "
    if shape.opened is Opened.REASONING:
        return thoughts
    return f"(({' | '.join(map(start_of, reasoning.opens))}) {thoughts})? "


def _opens(shape: AnswerShape) -> list[Mark]:
    """Marks with which something begins that is no text."""
    reasoning = shape.format.reasoning.opens if shape.format.reasoning else ()
    return [*reasoning, *(mark for form in shape.format.calls for mark in form.opens)]


# ---- calls -------------------------------------------------------------------------------------------------------


def _form(shape: AnswerShape) -> Calls:
    """Within a text that goes on, calls without a mark would be a part of it."""
    form = shape.format.calls[0]
    return replace(form, bare=False, between="") if shape.opened is Opened.TEXT else form


def _calls(shape: AnswerShape, parts: Parts) -> Iterable[str]:
    """Ways to begin behind the reasoning."""
    form, least = _form(shape), max(shape.least, 1)
    tools, most = _tools(shape, parts), _most(shape)
    listed = form.syntax in LISTED
    call = parts.rule("call", WRITERS[form.syntax](form, tools, parts, (least, most)))
    least, most = (1, 1) if listed else (least, most)
    if shape.text and not form.bare:
        yield _amid_text(shape, call, most, parts)
        return
    mark = "" if form.bare else start_of(form.opens[0])
    between = quoted(form.between) if form.between else "WS? WS?"
    yield f"{mark} {call} {repeated(f'{between} {mark} {call}', least - 1, most - 1)}"
    if shape.text and shape.least == 0:
        yield parts.rule("PROSE", _without(_opens(shape), r"\s*[^\s\[{]")) + "?"


def _most(shape: AnswerShape) -> int:
    form, most = _form(shape), MOST_CALLS if shape.most is None else shape.most
    endless = form.bare or not form.closes  # a custom tool's text, which only the answer's end ends
    most = 1 if endless and any(tool.grammar for tool in shape.tools) else most
    if most < max(shape.least, 1):
        raise GrammarError("calls", f"{shape.least} calls are too many; there may be {most}")
    return most


def _amid_text(shape: AnswerShape, call: str, most: int, parts: Parts) -> str:
    """Free text, in which no mark stands without its call. Behind the only call there is none."""
    form, opens = shape.format.calls[0], _opens(shape)
    around = _around_text(shape, opens, parts)
    lead = around + _until(form.opens, parts, [mark for mark in opens if mark not in form.opens])
    tail = f"{around}{parts.rule('TEXT', _without(opens))}?"
    if most == 1:
        return f"{lead} {call}" if shape.least else f"({lead} {call} | {tail})"
    bound = most if shape.least or shape.most is not None else None
    return f"{repeated(f'{lead} {call}', shape.least, bound)} {tail}"


def _around_text(shape: AnswerShape, opens: Collection[Mark], parts: Parts) -> str:
    """Texts with the marks around them, where these are tokens, which no text can spell."""
    marks = (*shape.format.text_opens, *shape.format.ends) if shape.format.text_opens else ()
    tokens = [start_of(mark) for mark in marks if mark.token_id is not None]
    return f"({parts.rule('TEXT', _without(opens))}? ({' | '.join(tokens)}))* " if tokens else ""


def _tools(shape: AnswerShape, parts: Parts) -> list[Tool]:
    tools: list[Tool] = []
    for tool in shape.tools:
        try:
            if tool.grammar is not None:
                tools.append(Tool(tool.name, text=_input(tool.grammar, shape.format.calls[0], parts)))
            else:
                declared = _declared(tool.parameters)
                tools.append(Tool(tool.name, parts.canonical(closed({**declared, "type": "object"})), declared))
        except GrammarError as error:
            raise blamed(tool.name, error) from error
    return tools


def _declared(parameters: Any) -> Mapping[str, Any]:
    schema = {} if parameters is None else parameters
    if not isinstance(schema, Mapping):
        raise GrammarError("parameters", "parameters must be a JSON schema, an object")
    if schema.get("type", "object") != "object":
        raise GrammarError("type", f"parameters have the type {schema['type']!r}; arguments are an object", "#/type")
    return schema


def _input(grammar: tuple[str, str], form: Calls, parts: Parts) -> str:
    """A custom tool's text, and the line behind it. An expression's ends with the first such line."""
    if form.syntax is not Syntax.JSON:
        raise impossible("grammar")
    made = parts.nested(*grammar)
    if grammar[0] != "regex":
        return f'{parts.beside(made)} "\\n}}"'
    expression = made["lark_grammar"].removeprefix("start: ")
    never = [mark for mark in form.closes if mark.token_id is None]
    return parts.lazy("input", f'({expression}{" & " + _without(never) if never else ""}) "\\n}}"')
