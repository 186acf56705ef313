"""Regular expressions of response templates as sequences of literals. They are read once, at load, and never matched:
what has no such reading is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from model.errors import TokenizerError


class Gap(Enum):
    """What a pattern has between literals."""

    BLANKS = "blanks"
    ANYTHING = "anything"
    START = "start"  # of the answer
    END = "end"


@dataclass(frozen=True, slots=True)
class Group:
    """A capture. `body`: what it may hold, as it is written."""

    name: str
    body: str


Part = str | Gap | Group
Sequence = tuple[Part, ...]

_TOKEN = re.compile(
    r"""
    (?P<blanks> \\s[*+?]?\?? | (?:\\[ntr]|[\ \t\n])[*+?]\?? )
  | \(\?P<(?P<group>\w+)> (?P<body> (?: \[(?:\\.|[^\]\\])+\] | \\[wSd] | \. ) [*+]\?? ) \)
  | (?P<anything> (?: \. | \[\\s\\S\] ) \*\? )
  | (?P<open> \(\?: ) | (?P<close> \) ) | (?P<or> \| )
  | (?P<end> \$ | \\Z ) | (?P<start> \^ | \\A )
  | (?P<escape> \\[^A-Za-z0-9] | \\[ntr] ) | (?P<plain> [^\\()\[{.*+?|^$] )
    """,
    re.VERBOSE,
)
_MOST = 32  # alternatives
_SIGNS = {"n": "\n", "t": "\t", "r": "\r"}


def translate(pattern: str, field: str) -> list[Sequence]:
    """The alternatives. Raises TokenizerError, which names the field, for what is more than literals, blanks, named
    groups of one class, and non-greedy gaps."""
    reader = _Reader(pattern, field)
    alternatives = reader.alternatives()
    if reader.at < len(pattern):
        raise reader.refusal()
    return [_joined(one) for one in alternatives]


class _Reader:
    def __init__(self, pattern: str, field: str) -> None:
        self.pattern, self.field, self.at = pattern, field, 0

    def refusal(self) -> TokenizerError:
        return refusal(self.field, self.pattern, f"{self.pattern[self.at : self.at + 20]!r} is not supported")

    def alternatives(self, depth: int = 0) -> list[Sequence]:
        """Up to the end, or to the parenthesis that closes the group."""
        finished: list[Sequence] = []
        current: list[Sequence] = [()]
        while self.at < len(self.pattern) and not (depth and self.pattern[self.at] == ")"):
            found = _TOKEN.match(self.pattern, self.at)
            if found is None or found["close"]:
                raise self.refusal()
            self.at = found.end()
            if found["or"]:
                finished, current = finished + current, [()]
            else:
                parts = self._group(depth) if found["open"] else [_single(found)]
                current = [(*one, *part) for one in current for part in parts]
            if len(current) + len(finished) > _MOST:
                raise refusal(self.field, self.pattern, f"it has more than {_MOST} alternatives")
        return finished + current

    def _group(self, depth: int) -> list[Sequence]:
        if depth >= _MOST:
            raise self.refusal()
        inner = self.alternatives(depth + 1)
        if self.at == len(self.pattern):
            raise refusal(self.field, self.pattern, "a parenthesis is not closed")
        self.at += 1
        return inner


def refusal(field: str, pattern: str, reason: str) -> TokenizerError:
    return TokenizerError(
        f"response_template: {field} is {pattern!r}: {reason}; patterns may have literals, \\s*, named groups and "
        ".*? between them. Give a preset as the tool and reasoning format instead, or none"
    )


def _single(found: re.Match[str]) -> Sequence:
    if found["group"]:
        return (Group(found["group"], found["body"]),)
    for name, gap in (("blanks", Gap.BLANKS), ("anything", Gap.ANYTHING), ("start", Gap.START), ("end", Gap.END)):
        if found[name]:
            return (gap,)
    escaped = (found["escape"] or "")[1:]
    return (_SIGNS.get(escaped, escaped) or found["plain"],)


def _joined(parts: Sequence) -> Sequence:
    joined: list[Part] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif part is not Gap.BLANKS or not joined or joined[-1] is not Gap.BLANKS:
            joined.append(part)
    return tuple(joined)
