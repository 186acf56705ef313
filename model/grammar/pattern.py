"""Regular expressions of clients (ECMA-262, as JSON Schema has them) in the library's syntax (Rust's).

Where engines differ, what is made here matches no more than each of ECMA-262 and Python's `re`: a validator in
either accepts what was generated. ``[&&]``, ``\\d``, ``.`` and others mean something else to Rust, so every sign is
translated and what is not known is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from model.grammar.errors import GrammarError
from model.grammar.limits import LIMITS

_WORD = "0-9A-Za-z_"
_BLANK = r"\t\n\x0b\x0c\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_CLASSES = {  # what all engines match, and what any of them does
    "d": ("0-9", r"\p{Nd}"),
    "w": (_WORD, r"\p{L}\p{N}\p{M}\p{Pc}\p{Alphabetic}"),
    "s": (_BLANK, _BLANK + r"\x1c-\x1f\u0085\ufeff"),
}
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
_QUANTIFIER = re.compile(r"(?:[*+?]|\{(\d+)(,?)(\d*)\})")
_DIGITS = 9  # of a count
_PROPERTY = re.compile(r"[pP]\{[A-Za-z_=]{1,60}\}")
_HEX = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}")
_NAMED = re.compile(r"\?P?<[A-Za-z_][A-Za-z0-9_]*>")
_SIGNS = frozenset("^$\\.*+?()[]{}|/-,:;=!<>@#%&~`'\" _")


def translate(pattern: str, pointer: str = "", keyword: str = "pattern", *, whole: bool = False) -> str:
    """The same expression for the library. Raises GrammarError for what it cannot enforce, by name.

    ``whole``: it has to match the whole text, not a part of it.
    """
    return _Translator(pattern, pointer, keyword, whole).run()


def literal(text: str) -> str:
    """An expression for this text alone, also between the slashes of a Lark grammar."""
    return "".join(sign if sign.isalnum() and sign.isascii() else _sign(ord(sign)) for sign in text)


def _sign(code: int) -> str:
    return f"\\x{{{code:x}}}"


@dataclass(slots=True)
class _Translator:
    pattern: str
    pointer: str
    keyword: str
    whole: bool
    at: int = 0
    out: list[str] = field(default_factory=list)
    repeats: list[int] = field(default_factory=lambda: [1])  # of the open groups: the largest product inside
    last: int = 0  # the product of the repeats in the last element; 0: nothing to repeat

    def run(self) -> str:
        while self.at < len(self.pattern):
            self.element(self.take())
        if len(self.repeats) > 1:
            self.refuse("it has a '(' without its ')'")
        return "".join(self.out)

    def refuse(self, why: str) -> None:
        raise GrammarError(
            self.keyword, f"{self.keyword} {self.pattern[:80]!r}: {why} (at character {self.at})", self.pointer
        )

    def take(self) -> str:
        if self.at >= len(self.pattern):
            self.refuse("it ends too early")
        self.at += 1
        return self.pattern[self.at - 1]

    def match(self, expected: re.Pattern[str]) -> re.Match[str] | None:
        found = expected.match(self.pattern, self.at)
        self.at = found.end() if found else self.at
        return found

    def element(self, sign: str) -> None:
        self.at -= 1
        if found := self.match(_QUANTIFIER):
            return self.repeat(found)
        self.at += 1
        if sign in "^$" and self.whole:
            self.require_edge(sign)
            self.last = 0
        elif sign in "^$|":
            self.out.append(sign)
            self.last = 0
        elif sign == "(":
            self.open_group()
        elif sign == ")":
            self.close_group()
        else:
            self.out.append(self.single(sign))
            self.last = 1
        return None

    def require_edge(self, sign: str) -> None:
        """At the ends of a whole text an anchor says nothing, and elsewhere it is not supported."""
        beside = self.pattern[self.at - 2 : self.at - 1] if sign == "^" else self.pattern[self.at : self.at + 1]
        if (
            len(self.repeats) > 1
            or beside not in ("", "|")
            or (sign == "^" and self.pattern[: self.at - 1][-2:] == "\\|")
        ):
            self.refuse(f"the whole text has to match; '{sign}' inside of it is not supported")

    def single(self, sign: str) -> str:
        if sign == "\\":
            return self.escape()
        if sign == "[":
            return self.char_class()
        if sign == ".":
            return r"[^\n\r\u2028\u2029]"
        if sign == "{" and self.pattern.startswith(",", self.at):
            self.refuse("'{,n}' means different things to different engines; write '{0,n}'")
        return _sign(ord(sign))

    def repeat(self, found: re.Match[str]) -> None:
        if not self.last:
            self.refuse("there is nothing that could be repeated")
        low, comma, high = found[1], found[2], found[3]
        if max(len(low or ""), len(high or "")) > _DIGITS:
            self.refuse(f"a count of more than {_DIGITS} digits is beyond the limit max_repeat")
        times = max(int(low or 0), int(high or 0), 1)
        if high and int(high) < int(low):
            self.refuse(f"the range {found[0]} is empty")
        self.repeats[-1] = max(self.repeats[-1], self.last * times)
        LIMITS.require("max_repeat", self.repeats[-1], f"repetitions in {self.keyword}", self.pointer)
        self.out.append(found[0])
        self.last = 0
        if self.pattern.startswith("+", self.at):
            self.refuse("possessive quantifiers are not supported")
        if self.pattern.startswith("?", self.at):
            self.at += 1  # lazy or not, the same texts match
        assert comma in (None, "", ",")

    def open_group(self) -> None:
        if self.match(_NAMED) is None and self.pattern.startswith("?", self.at):
            if not self.pattern.startswith("?:", self.at):
                ahead = self.pattern[self.at : self.at + 3].rstrip("(")
                kind = "look-around" if ahead[1:2] in ("=", "!", "<") else "inline flags and other extensions"
                self.refuse(f"{kind} '({ahead}' cannot be enforced")
            self.at += 2
        self.out.append("(?:")
        self.repeats.append(1)
        self.last = 0

    def close_group(self) -> None:
        if len(self.repeats) == 1:
            self.refuse("it has a ')' without its '('")
        self.out.append(")")
        self.last = self.repeats.pop()
        self.repeats[-1] = max(self.repeats[-1], self.last)

    def escape(self) -> str:
        sign = self.pattern[self.at : self.at + 1]
        if sign in ("b", "B"):
            self.refuse(f"the word boundary '\\{sign}' cannot be enforced")
        if (sign.isdigit() and sign != "0") or sign == "k":
            self.refuse(f"the back-reference '\\{sign}' cannot be enforced")
        if sign.lower() in _CLASSES and sign:
            self.at += 1
            small, large = _CLASSES[sign.lower()]
            return f"[{small}]" if sign.islower() else f"[^{large}]"
        if found := self.match(_PROPERTY):
            return f"\\{found[0]}"
        return _sign(self.code())

    def code(self) -> int:
        """Of the sign that an escape stands for, in a class or outside."""
        if found := self.match(_HEX):
            code = int(found[1] or found[2] or found[3], 16)
            return self.surrogates(code) if 0xD800 <= code < 0xE000 else code
        sign = self.take()
        if sign in _CONTROLS:
            return _CONTROLS[sign]
        if sign == "0" and not self.pattern[self.at : self.at + 1].isdigit():
            return 0
        if sign == "c" and self.pattern[self.at : self.at + 1].isalpha() and self.pattern[self.at].isascii():
            return ord(self.take()) % 32
        if sign not in _SIGNS:
            self.refuse(f"the escape '\\{sign}' is not one of ECMA-262")
        return ord(sign)

    def surrogates(self, high: int) -> int:
        low = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})").match(self.pattern, self.at)
        if high >= 0xDC00 or low is None:
            self.refuse("half of a surrogate pair is no character")
            return 0
        self.at = low.end()
        return 0x10000 + ((high - 0xD800) << 10) + int(low[1], 16) - 0xDC00

    def char_class(self) -> str:
        negated = self.pattern.startswith("^", self.at)
        self.at += negated
        parts: list[str] = []
        if self.pattern.startswith("]", self.at):
            self.refuse("an empty class '[]' means different things to different engines")
        while (sign := self.take()) != "]":
            parts.append(self.member(sign, negated=negated))
        return f"[{'^' * negated}{''.join(parts)}]"

    def member(self, sign: str, *, negated: bool) -> str:
        if sign == "\\":
            if whole := self.set_of_class(negated=negated):
                return whole
            first = 8 if self.pattern.startswith("b", self.at) else self.code()
            self.at += first == 8 and self.pattern.startswith("b", self.at)
        else:
            first = ord(sign)
        if not self.pattern.startswith("-", self.at) or self.pattern.startswith("-]", self.at):
            return _sign(first)
        self.at += 1
        return self.range_from(first)

    def range_from(self, first: int) -> str:
        sign = self.take()
        if sign == "\\" and self.pattern[self.at : self.at + 1] in "dDwWsSpP":
            self.at -= 1  # as in '[a-\d]': three members
            return _sign(first) + _sign(ord("-"))
        last = self.code() if sign == "\\" else ord(sign)
        if last < first:
            self.refuse("a range of its class is upside down")
        return f"{_sign(first)}-{_sign(last)}"

    def set_of_class(self, *, negated: bool) -> str:
        """``\\d`` and its like in a class. Negation takes the larger set, so that it leaves less."""
        sign = self.pattern[self.at : self.at + 1]
        if sign.lower() in _CLASSES and sign:
            self.at += 1
            small, large = _CLASSES[sign.lower()]
            if sign.islower():
                return large if negated else small
            return f"[^{small if negated else large}]"
        found = self.match(_PROPERTY)
        return f"\\{found[0]}" if found else ""
