"""From what a request says to the one text that says it: the library's own format, our rules applied."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from model.grammar.answer import AnswerShape, answer_grammars
from model.grammar.errors import GrammarError
from model.grammar.lark import rewrite_lark
from model.grammar.library import gbnf_to_lark
from model.grammar.limits import LIMITS
from model.grammar.pattern import literal, translate
from model.grammar.schema import canonical_schema

# Between two tokens of JSON one blank, or a new line and its indentation, so that a model cannot go on with them for
# ever; no \uXXXX escapes, by which an additional property could take the name of one that the schema lists.
_OPTIONS = {"whitespace_pattern": r"[\x20\x09]|\x0D?\x0A[\x20\x09]{0,48}", "json_allowed_escapes": 'nrbtf\\"'}


def grammar_text(kind: str, value: Any = None) -> str:
    """One canonical text for a grammar: the same for equal requests, and all that the other functions need.

    ``kind`` and ``value``: ``json_object`` (no value: any JSON object), ``json_schema`` (a schema as an object, a
    boolean or JSON text), ``regex`` (text, to be matched as a whole), ``choice`` (a list of strings), ``lark``,
    ``gbnf`` and ``ebnf`` (a grammar's text), ``answer`` (an `AnswerShape`). A pure function; takes up to some 50 ms
    for the largest schemas, 200 ms for those of many tools.

    Raises GrammarError for a value of another shape, and for what cannot be enforced in full; `check` looks at the
    result once more. ModuleNotFoundError: the kind needs llguidance, and it is not installed.
    """
    make = _MAKERS.get(kind)
    if make is None:
        raise GrammarError("kind", f"a grammar of kind {kind[:40]!r} is unknown; there are {', '.join(_MAKERS)}")
    return make(value)


def _json_object(value: Any) -> str:
    if value is not None:
        raise GrammarError("json_object", "json_object takes no schema; use json_schema")
    return _schema_text({"type": "object"})


def _json_schema(value: Any) -> str:
    return _schema_text(canonical_schema(_parsed(value)))


def _schema_text(schema: dict[str, Any]) -> str:
    return _dump({"grammars": [{"json_schema": _with_options(schema)}]})


def _with_options(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "x-guidance": _OPTIONS}


def _regex(value: Any) -> str:
    return _lark_text(f"start: /(?:{translate(_text('regex', value), keyword='regex', whole=True)})/")


def _choice(value: Any) -> str:
    if not isinstance(value, list | tuple) or not value or not all(isinstance(one, str) for one in value):
        raise GrammarError("choice", "choice must be a list of at least one string")
    choices = list(dict.fromkeys(value))
    LIMITS.require("max_enum", len(choices), "choices")
    LIMITS.require("max_schema_bytes", sum(map(len, choices)), "characters in choices")
    return _lark_text(f"start: /(?:{'|'.join(map(literal, choices))})/")


def _lark(value: Any) -> str:
    return _lark_text(rewrite_lark(_text("lark", value), _embedded))


def _embedded(schema: Any) -> dict[str, Any]:
    return _with_options(canonical_schema(schema))


def _gbnf(value: Any) -> str:
    return _lark(gbnf_to_lark(_text("gbnf", value)))


def _lark_text(lark: str) -> str:
    return _dump({"grammars": [{"lark_grammar": lark}]})


def _answer(value: Any) -> str:
    if not isinstance(value, AnswerShape):
        raise GrammarError("answer", "an answer's grammar is made of an AnswerShape")
    return _dump({"grammars": answer_grammars(value, _nested)})


def _nested(kind: str, value: Any) -> dict[str, Any]:
    (grammar,) = json.loads(grammar_text(kind, value))["grammars"]
    return dict(grammar)


def _text(kind: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise GrammarError(kind, f"{kind} must be a text, not {str(value)[:40]!r}")
    LIMITS.require("max_schema_bytes", len(value.encode(errors="surrogatepass")), f"bytes of {kind}")
    return value


def _parsed(schema: Any) -> Any:
    if not isinstance(schema, str):
        LIMITS.require("max_schema_bytes", _size(schema), "bytes of the schema", "#")
        return schema
    LIMITS.require("max_schema_bytes", len(schema), "characters of the schema", "#")
    try:
        return json.loads(schema)
    except (ValueError, RecursionError) as error:
        raise GrammarError("json_schema", f"the schema is no JSON: {error}", "#") from error


def _size(schema: Any) -> int:
    try:
        return len(_dump(schema))
    except (ValueError, TypeError, RecursionError) as error:
        raise GrammarError("json_schema", f"the schema is no JSON: {error}", "#") from error


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


_MAKERS: dict[str, Callable[[Any], str]] = {
    "answer": _answer,
    "json_object": _json_object,
    "json_schema": _json_schema,
    "regex": _regex,
    "choice": _choice,
    "lark": _lark,
    "gbnf": _gbnf,
    "ebnf": _gbnf,
}
KINDS = tuple(_MAKERS)
