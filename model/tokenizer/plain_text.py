"""What users write into a chat is text, even where it spells a special token.

Such places are marked before a chat template is rendered, and found again in its prompt, whatever the template does
to the text around them.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable

Spans = tuple[int, ...]
"""Places in a text that are no special tokens: where each begins and ends, in characters, one after the other."""

_BEGIN, _END = "\ufdd0", "\ufdd1"  # Unicode's noncharacters, which no text should have
_MARKED = re.compile(f"{_BEGIN}([^{_BEGIN}{_END}]*){_END}|[{_BEGIN}{_END}]")


def without_marks(text: str) -> str:
    """A client's own noncharacters are no marks."""
    if _BEGIN in text or _END in text:
        return text.replace(_BEGIN, "\N{REPLACEMENT CHARACTER}").replace(_END, "\N{REPLACEMENT CHARACTER}")
    return text


class SpecialTexts:
    """The texts of a tokenizer's special tokens."""

    def __init__(self, texts: Iterable[str]) -> None:
        longest_first = sorted(filter(None, texts), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def mark(self, text: str) -> str:
        """The text with marks around those of special tokens."""
        text = without_marks(text)
        return text if self._pattern is None else self._pattern.sub(f"{_BEGIN}\\g<0>{_END}", text)


def unmark(marked: str) -> tuple[str, Spans]:
    """The text without marks, and where they were."""
    if _BEGIN not in marked and _END not in marked:
        return marked, ()
    parts: list[str] = []
    spans: list[int] = []
    at = length = 0
    for found in _MARKED.finditer(marked):
        inside = found[1] or ""
        parts += (marked[at : found.start()], inside)
        length += found.start() - at
        if inside:
            spans += (length, length + len(inside))
        length += len(inside)
        at = found.end()
    return "".join((*parts, marked[at:])), tuple(spans)


class Within:
    """Whether something lies in one of these places, at least in part: a token may take blanks around it along."""

    def __init__(self, spans: Spans) -> None:
        self._begins, self._ends = spans[::2], spans[1::2]

    def __call__(self, start: int, end: int) -> bool:
        at = bisect_left(self._begins, end) - 1  # the last that begins before the end
        return at >= 0 and start < end and self._ends[at] > start
