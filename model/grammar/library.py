"""llguidance, which is optional and imported where it is first needed; and what it refuses."""

from __future__ import annotations

import re
from functools import cache
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
    "too many expressions": "initial_lexer_fuel",
    "lexer states": "max_lexer_states",
    "too many states": "max_lexer_states",
    "schema too large": "max_schemas",
}


def available() -> bool:
    try:
        load()
    except ModuleNotFoundError:
        return False
    return True


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
    line = re.sub(r"\s+", " ", message.partition("<state>")[0].partition("\n  while")[0]).strip()[:300]
    for words, limit in _LIMIT_WORDS.items():
        if words in line.lower():
            return GrammarError(limit, f"the grammar is too complex, beyond the limit {limit}: {line}")
    return GrammarError("grammar", f"the grammar cannot be enforced: {line}")


def check(text: str) -> None:
    """Raise GrammarError unless ``text``, which `grammar_text` made, compiles within our limits.

    Needs no tokenizer; releases the GIL for most of its time, so call it in a thread. ModuleNotFoundError: llguidance
    is not installed.
    """
    LIMITS.require("max_text_bytes", len(text), "bytes of the grammar, formats and patterns written out")
    complaint: str = load().LLMatcher.validate_grammar(text, None, limits=_limits())
    if complaint and not complaint.startswith("WARNING"):
        raise refusal(complaint)
    if "<" not in text:  # no special tokens, which the bytes below do not have
        _require_start(text)


def _require_start(text: str) -> None:
    """Some limits are reached only when the first mask is made."""
    matcher = new_matcher(_byte_tokenizer(), text)
    mask = matcher.compute_bitmask()
    require_sound(matcher)
    if not any(mask):
        raise GrammarError("grammar", "the grammar allows no text at all")


@cache
def _byte_tokenizer() -> llguidance.LLTokenizer:
    tokenizer: llguidance.LLTokenizer = load().LLTokenizer("byte")
    return tokenizer


@cache
def _limits() -> Any:
    names = ("max_grammar_size", "initial_lexer_fuel", "step_lexer_fuel", "step_max_items", "max_items_in_row")
    chosen = {name: getattr(LIMITS, name) for name in (*names, "max_lexer_states")}
    return load().LLParserLimits(**chosen, verbose_errors=False)
