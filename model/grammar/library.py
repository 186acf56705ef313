"""llguidance, which is optional and imported where it is first needed; and what it refuses."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from model.grammar.errors import GrammarError
from model.grammar.limits import LIMITS

if TYPE_CHECKING:
    import llguidance

INSTALL = "structured output needs llguidance; install it with: pip install 'ringserve[grammar]'"
_LIMIT_WORDS = {  # of the library's messages
    "grammar size": "max_grammar_size",
    "grammar too big": "max_grammar_size",
    "initial lexer": "initial_lexer_fuel",
    "fuel": "step_lexer_fuel",
    "too many items": "step_max_items",
    "lexer states": "max_lexer_states",
    "too many states": "max_lexer_states",
    "schema too large": "max_schemas",
}


def available() -> bool:
    """Whether it is installed; it is not imported for that."""
    return find_spec("llguidance") is not None


def load() -> ModuleType:
    """Raises ModuleNotFoundError that says how to install it."""
    try:
        import llguidance
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(INSTALL, name="llguidance") from error
    return llguidance


def gbnf_to_lark(text: str) -> str:
    load()
    from llguidance.gbnf_to_lark import any_to_lark

    try:
        return str(any_to_lark(text))
    except Exception as error:  # its parser raises what it meets
        raise GrammarError("gbnf", f"the grammar is not GBNF: {str(error)[:300]}") from error


def new_matcher(tokenizer: llguidance.LLTokenizer, text: str) -> llguidance.LLMatcher:
    """Compiled within our limits; the GIL is released meanwhile. Raises GrammarError."""
    matcher: llguidance.LLMatcher = load().LLMatcher(tokenizer, text, log_level=0, limits=_limits())
    require_sound(matcher)
    return matcher


def require_sound(matcher: llguidance.LLMatcher) -> None:
    """Raise GrammarError if the matcher is in its error state, which it never leaves."""
    if matcher.is_error():
        raise refusal(matcher.get_error())


def refusal(message: str) -> GrammarError:
    """The library's error as ours: its first line, and the name of the limit if it was one."""
    line = re.sub(
        r"\s+", " ", message.replace("<non-verbose/>", "").partition("<state>")[0].partition("\n  while")[0]
    ).strip()[:300]
    if line.startswith("NoExtension"):
        return GrammarError("grammar", "the grammar allows no text at all, or none that ends")
    if "too many expressions" in line:
        why = "has too many states: counts in it, and minLength or maxLength beside it, multiply; use smaller ones"
        return GrammarError("pattern", f"a pattern {why}")
    for words, limit in _LIMIT_WORDS.items():
        if words in line.lower():
            return GrammarError(limit, f"the grammar is too complex, beyond the limit {limit}: {line}")
    return GrammarError("grammar", f"the grammar cannot be enforced: {line}")


def validate(text: str) -> None:
    """Raise GrammarError for what is wrong without any vocabulary."""
    complaint: str = load().LLMatcher.validate_grammar(text, None, limits=_limits())
    if complaint and not complaint.startswith("WARNING"):
        raise refusal(complaint)


@cache
def _limits() -> Any:
    names = ("max_grammar_size", "initial_lexer_fuel", "step_lexer_fuel", "step_max_items", "max_items_in_row")
    chosen = {name: getattr(LIMITS, name) for name in (*names, "max_lexer_states")}
    return load().LLParserLimits(**chosen, verbose_errors=False)
