"""Structured output: what an answer must look like, as masks over the vocabulary.

A grammar that cannot be enforced in full is refused by name, never enforced in part. In the order of a request's
life: `grammar_text` (one canonical text, which the request carries) and `check`, in the front, in a thread;
`Grammars.compile`, in sampling, in a thread, when the request is queued; `Grammars.matcher` when it gets a row; then
`Matcher.fill` and `Matcher.take` in turn. llguidance is an extra: it is imported when it is first needed.
"""

from model.grammar.answer import AnswerShape, ToolShape
from model.grammar.checking import check
from model.grammar.errors import GrammarError
from model.grammar.library import INSTALL, available
from model.grammar.limits import LIMITS, Limits
from model.grammar.matcher import Grammars, Matcher, Vocabulary
from model.grammar.text import KINDS, grammar_text

__all__ = [
    "INSTALL",
    "KINDS",
    "LIMITS",
    "AnswerShape",
    "GrammarError",
    "Grammars",
    "Limits",
    "Matcher",
    "ToolShape",
    "Vocabulary",
    "available",
    "check",
    "grammar_text",
]
