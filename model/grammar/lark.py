"""Lark grammars of clients: what of their syntax is refused, and the JSON schemas inside them."""

from __future__ import annotations

import json
import re
from typing import Any

from model.grammar.errors import GrammarError

# in this order: what could hold the others as mere text comes first
_TOKEN = re.compile(
    r"""(?P<quoted>"(?:\\.|[^"\\\n])*"i?)
    |(?P<comment>(?://|\#)[^\n]*)
    |(?P<regex>/(?![/*])(?:\\.|[^/\\\n])+/[imslux]*)
    |(?P<json>%json\b\s*)
    |(?P<options>%(?:llguidance|import|declare|extend|override)\b[^\n]*)
    |(?P<attributes>(?<=[\w\-])\[(?=\s*(?:stop|suffix|temperature|max_tokens|lazy|capture|stop_capture)\b)[^\]]*\])""",
    re.VERBOSE,
)
_REFUSED_ATTRIBUTE = re.compile(r"\b(temperature|max_tokens|stop)\s*=")


def rewrite_lark(text: str, rewrite_schema: Any) -> str:
    """The same grammar with every ``%json`` schema rewritten. Raises GrammarError for what cannot be enforced."""
    parts, at = [], 0
    while found := _TOKEN.search(text, at):
        parts.append(text[at : found.start()])
        at = found.end()
        if found.lastgroup == "json":
            schema, at = _decode(text, at)
            parts.append(f"%json {json.dumps(rewrite_schema(schema))}")
        else:
            _refuse(found)
            parts.append(found[0])
    return "".join([*parts, text[at:]])


def _decode(text: str, at: int) -> tuple[Any, int]:
    try:
        return json.JSONDecoder().raw_decode(text, at)
    except ValueError as error:
        raise GrammarError("%json", f"what follows %json at character {at} is no JSON: {error}") from error


def _refuse(found: re.Match[str]) -> None:
    if found.lastgroup == "options" and not re.match(r"%import common\b|%llguidance\s*\{\s*\}\s*$", found[0]):
        name = found[0].split()[0]
        raise GrammarError(name, f"{name} is not supported in a grammar (only '%import common.…' is)")
    if found.lastgroup == "attributes" and (attribute := _REFUSED_ATTRIBUTE.search(found[0])):
        raise GrammarError(
            attribute[1], f"the attribute {attribute[1]} of a rule cannot be enforced; use the request's, or suffix"
        )
