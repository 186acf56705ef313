"""An answer's text as it arrives, read in one direction by generators that yield where they need more of it.

Nothing is read twice: what is left unread is at most as long as the longest mark, so the work is linear.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import TypeVar

from model.response.format import Mark

T = TypeVar("T")
Steps = Generator[None, None, T]
"""Yields when it needs more text, and returns."""

_BLANKS = re.compile(r"\s*")
_MOST_EXPECTED = 64  # marks whose text a stop string may hold back


class Search:
    """Several marks that are looked for together."""

    def __init__(self, marks: Iterable[Mark]) -> None:
        self.marks = frozenset(marks)
        self.texts = sorted((mark.text for mark in self.marks if mark.token_id is None), key=len, reverse=True)
        self.firsts = frozenset(mark.text[0] for mark in self.marks)
        self.pattern = re.compile("|".join(map(re.escape, self.texts))) if self.texts else None  # literals alone


def literal(text: str) -> Search:
    return Search([Mark(text)])


class Tape:
    """`tap` is shown all that is taken. `ended`: nothing more will come."""

    def __init__(self, marks: Iterable[Mark]) -> None:
        self.ended = False
        self.tap: Callable[[str], object] | None = None
        self._by_id: Mapping[int, Mark] = {mark.token_id: mark for mark in marks if mark.token_id is not None}
        self._longest = max((len(mark.text) for mark in self._by_id.values()), default=0)
        self._text, self._at, self._base = "", 0, 0  # `_base`: characters that are gone
        self._expected: deque[tuple[int, Mark]] = deque(maxlen=_MOST_EXPECTED)  # with the least end of its text
        self._found: deque[tuple[int, Mark]] = deque()  # with the start of its text
        self._located = 0  # the end of the last found one

    def push(self, text: str, token_id: int) -> None:
        gone = max(self._at - self._longest, 0)  # a generated mark may begin in what is taken already, as data
        self._base, self._at = self._base + gone, self._at - gone
        self._text = self._text[gone:] + text
        if (mark := self._by_id.get(token_id)) is not None:
            self._expected.append((self._base + len(self._text), mark))
        self._locate()

    def _locate(self) -> None:
        """A generated mark is the first occurrence of its text that ends at or behind what had arrived with it."""
        for index, (least_end, mark) in enumerate(self._expected):
            start = max(least_end - len(mark.text), self._located) - self._base
            if (start := self._text.find(mark.text, max(start, 0))) >= 0:
                self._found.append((self._base + start, mark))
                self._located = self._base + start + len(mark.text)
                for _ in range(index + 1):
                    self._expected.popleft()
                return self._locate()
        return None

    def take(self, count: int) -> str:
        text = self._text[self._at : self._at + count]
        self._at += len(text)
        if self.tap is not None:
            self.tap(text)
        return text

    def put_back(self, count: int) -> None:
        """Of what was taken last. The tap has seen it already."""
        self._at -= count

    def peek(self) -> Steps[str]:
        """The next character; empty at the end."""
        while self._at == len(self._text) and not self.ended:
            yield
        return self._text[self._at : self._at + 1]

    def skip_blanks(self) -> Steps[str]:
        """The character behind them; empty at the end."""
        while True:
            yield from self.peek()
            if not self._take_match(_BLANKS):
                return self._text[self._at : self._at + 1]

    def run(self, pattern: re.Pattern[str]) -> Steps[str]:
        """Takes what has arrived of what the pattern matches, which is a repeated character class."""
        yield from self.peek()
        return self._take_match(pattern)

    def _take_match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        return self.take(found.end() - self._at) if found is not None and found.end() > self._at else ""

    def until(self, search: Search) -> Steps[tuple[str, Mark | None]]:
        """Takes text up to a mark and the mark, or what has arrived that is before any; both are empty at the end."""
        while True:
            start, mark = self._next(search)
            hold = self._hold(search)
            if mark is not None and start < hold:
                text = self.take(start - self._at)
                self.take(len(mark.text))
                return text, mark
            if hold > self._at or self.ended:
                return self.take(hold - self._at), None
            yield

    def mark_here(self, search: Search) -> Steps[Mark | None]:
        """The mark that the unread text begins with; not taken."""
        while True:
            start, mark = self._next(search, here=True)
            if self._hold(search) > self._at:
                return mark if start == self._at else None
            if self.ended:
                return None
            yield

    def _next(self, search: Search, *, here: bool = False) -> tuple[int, Mark | None]:
        """The first mark and where it starts; of several at one place, the longest."""
        while self._found and self._found[0][0] < self._base + self._at:
            self._found.popleft()
        generated = next(((start - self._base, mark) for start, mark in self._found if mark in search.marks), None)
        spelled = None
        if search.pattern is not None:
            spelled = (search.pattern.match if here else search.pattern.search)(self._text, self._at)
        if generated is not None and (spelled is None or generated[0] <= spelled.start()):
            return generated
        return (spelled.start(), Mark(spelled[0])) if spelled is not None else (-1, None)

    def _hold(self, search: Search) -> int:
        """Where text begins that may be the beginning of a mark, or of a longer one."""
        if self.ended:
            return len(self._text)
        texts = search.texts + [mark.text for _, mark in self._expected if mark in search.marks]
        longest = max(map(len, texts), default=0)
        for start in range(max(self._at, len(self._text) - longest + 1), len(self._text)):
            if self._text[start] in search.firsts and any(
                len(text) > len(self._text) - start and self._text.endswith(text[: len(self._text) - start])
                for text in texts
            ):
                return start
        return len(self._text)
