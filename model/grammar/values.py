"""JSON values that a schema names: what `const` and `enum` may hold, and the numbers of the other keywords."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

from model.grammar.errors import GrammarError, child
from model.grammar.limits import LIMITS

EXACT = 2**53  # beyond, binary64, in which nearly everybody reads JSON, skips integers
SMALLEST = Fraction(1, 10**9)
_UNWRITABLE = re.compile("[\x00-\x07\x0b\x0e-\x1f\x7f\ud800-\udfff]")


def require_value(value: Any, keyword: str, pointer: str, depth: int = 0) -> None:
    """Raise GrammarError for a value that the library could not bring about exactly."""
    LIMITS.require("max_depth", depth, f"nested values in {keyword}", pointer)
    if isinstance(value, str):
        if _UNWRITABLE.search(value):
            raise GrammarError(keyword, f"{keyword} has a control character, which could only be escaped", pointer)
    elif isinstance(value, dict):
        for name, inner in value.items():
            require_value(name, keyword, pointer, depth + 1)
            require_value(inner, keyword, child(pointer, name), depth + 1)
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            require_value(inner, keyword, child(pointer, at), depth + 1)
    elif value is not None and not isinstance(value, bool):
        require_number(value, keyword, pointer)


def require_number(value: Any, keyword: str, pointer: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise GrammarError(keyword, f"{keyword} must be a number, not {str(value)[:40]}", pointer)
    if abs(value) > EXACT or 0 < abs(value) < SMALLEST:
        raise GrammarError(
            keyword,
            f"{keyword} {value} cannot be enforced exactly: numbers must be 0, or of size 1e-9 to 2**53",
            pointer,
        )
    return int(value) if value == int(value) else value


def require_count(value: Any, keyword: str, limit: str, pointer: str) -> int:
    count = require_integer(value, keyword, pointer)
    LIMITS.require(limit, count, keyword, pointer)
    return count


def require_integer(value: Any, keyword: str, pointer: str) -> int:
    integral = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not integral or value != int(value) or value < 0:
        raise GrammarError(keyword, f"{keyword} must be a whole number >= 0, not {str(value)[:40]}", pointer)
    return int(value)


def multiple(value: Any, pointer: str) -> Fraction:
    """Raises GrammarError for steps like 0.1, which binary arithmetic cannot check: validators disagree on them."""
    number = require_number(value, "multipleOf", pointer)
    exact = Fraction(number)
    if number <= 0:
        raise GrammarError("multipleOf", f"multipleOf must be above 0, not {number}", pointer)
    if exact != Fraction(str(number)) or exact.denominator > 4:
        raise GrammarError(
            "multipleOf",
            f"multipleOf {number} is no multiple of 0.25, so that validators disagree about it; use an integer",
            pointer,
        )
    return exact
