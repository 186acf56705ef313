"""The text of a stream, token by token: no half characters, none lost, none doubled, and an end at stop strings.

A token is a piece of UTF-8 that need not begin or end at a character. So the bytes of the tokens go through
an incremental UTF-8 decoder, which keeps an unfinished character (at most three bytes) until it is complete
or known to be invalid. `Tokenizer.decode` is the same machine run to the end; therefore the joined
increments equal the decoding of the whole by construction, and the work per token does not depend on what
was before.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

LONGEST_CHARACTER = 4  # bytes in UTF-8
ESCAPED_BYTES = re.compile("[\udc80-\udcff]")  # what "surrogateescape" makes of invalid bytes


class InvalidBytes(Enum):
    """How many U+FFFD stand for bytes that are not UTF-8; the value is Python's name of the error handler."""

    ONE_PER_SEQUENCE = "replace"  # Unicode's recommendation; byte-level BPE
    ONE_PER_BYTE = "surrogateescape"  # SentencePiece and byte fallback


@dataclass(frozen=True, slots=True)
class DecodingRules:
    """What is the same for all tokens of a tokenizer."""

    invalid_bytes: InvalidBytes
    strip_left: int = 0  # spaces to drop at the beginning of the whole text


@dataclass(frozen=True, slots=True)
class Piece:
    """What one token adds to the text."""

    data: bytes = b""
    keeps_start: bool = False  # the next token still stands at the beginning
    breaks: bool = False  # bytes before and after it never form one character


NOTHING = Piece(keeps_start=True)  # of ids that do not exist


class PieceSource(Protocol):
    """The part of a tokenizer that is needed here."""

    rules: DecodingRules

    def piece(self, token_id: int, *, at_start: bool, skip_special: bool) -> Piece: ...


class ShowingSpecial:
    """Shows these special tokens even where others are skipped."""

    def __init__(self, source: PieceSource, shown: Iterable[int]) -> None:
        self._source, self._shown, self.rules = source, frozenset(shown), source.rules

    def piece(self, token_id: int, *, at_start: bool, skip_special: bool) -> Piece:
        skip = skip_special and token_id not in self._shown
        return self._source.piece(token_id, at_start=at_start, skip_special=skip)


class IncrementalDetokenizer:
    """Text of a growing sequence of tokens.

    ``context`` is what stands before the first pushed token: the prompt, and after a restart also the tokens
    whose text has already been given out. Its text is not given out again, but it decides about a leading
    space and completes a character that its last token began. Building one reads a few tokens at the beginning and
    at the end of the context, and more only where these add nothing to the text.
    """

    def __init__(self, source: PieceSource, context: Sequence[int] = (), *, skip_special: bool = True) -> None:
        self._source = source
        self._skip_special = skip_special
        self._utf8 = codecs.getincrementaldecoder("utf-8")(source.rules.invalid_bytes.value)
        self._at_start = True
        self._strip_left = source.rules.strip_left
        self._replay(context)

    def push(self, token_id: int) -> str:
        """The text that this token completes; empty while its last character is unfinished."""
        piece = self._source.piece(token_id, at_start=self._at_start, skip_special=self._skip_special)
        self._at_start = self._at_start and piece.keeps_start
        text = self._utf8.decode(b"", final=True) if piece.breaks else ""
        return self._finish_text(text + self._utf8.decode(piece.data))

    def finish(self) -> str:
        """What is left at the end: U+FFFD for a character that was never completed, else nothing."""
        return self._finish_text(self._utf8.decode(b"", final=True))

    def _finish_text(self, text: str) -> str:
        if self._source.rules.invalid_bytes is InvalidBytes.ONE_PER_BYTE:
            text = ESCAPED_BYTES.sub("\ufffd", text)
        if self._strip_left and text:
            text = self._strip(text)
        return text

    def _strip(self, text: str) -> str:
        spaces = min(len(text) - len(text.lstrip(" ")), self._strip_left)
        only_spaces = spaces == len(text)
        self._strip_left = self._strip_left - spaces if only_spaces else 0
        return text[spaces:]

    def _replay(self, context: Sequence[int]) -> None:
        """Push the shortest parts of the context after which the state is that after the whole context.

        The state is whether leading spaces may still be dropped, which the beginning settles, and an unfinished
        character, which the end does.
        """
        rest = context[self._push_all(context, until_settled=True) :]
        start = end_with_bytes(self._source, rest, LONGEST_CHARACTER, skip_special=self._skip_special)
        if start:
            self._utf8.reset()
        self._push_all(rest[start:])

    def _push_all(self, context: Sequence[int], *, until_settled: bool = False) -> int:
        """Push tokens, or only those up to the first that surely stands inside the text; how many they are."""
        idle: set[int] = set()  # what changes nothing in the present state, however often it comes
        for index, token_id in enumerate(context):
            if token_id in idle:
                continue
            before = self._state()
            self.push(token_id)
            if until_settled and not (self._at_start or self._strip_left):
                return index + 1
            if self._state() == before:
                idle.add(token_id)
            else:
                idle.clear()
        return len(context)

    def _state(self) -> Hashable:
        return self._at_start, self._strip_left, self._utf8.getstate()


def end_with_bytes(source: PieceSource, ids: Sequence[int], needed: int, *, skip_special: bool) -> int:
    """Where the shortest end of the ids begins that adds so many bytes in the middle of a text; 0 if none does."""
    sizes: dict[int, int] = {}
    start = len(ids)
    while start > 0 and needed > 0:
        start -= 1
        token_id = ids[start]
        size = sizes.get(token_id)
        if size is None:
            size = len(source.piece(token_id, at_start=False, skip_special=skip_special).data)
            sizes[token_id] = size
        needed -= size
    return start


class StopStrings:
    """Passes text on and ends it at the first stop string, wherever the tokens' borders lie.

    Text that may be the beginning of a stop string is held back until that is settled. The stop string that
    is complete first ends the text; of several that end at the same place the longest counts. So the
    outcome does not depend on how the text is cut into pieces. After a restart, push the last `memory` characters
    of the text so far (or more) and drop what comes back: the state is then the same.
    """

    def __init__(self, stops: Sequence[str], *, include: bool = False) -> None:
        """``include`` keeps the matched stop string in the text. Raises ValueError for an empty one."""
        if not all(stops):
            raise ValueError("an empty stop string would end every text before its first character")
        self._given, self._stops = tuple(stops), tuple(dict.fromkeys(stops))
        self.memory = max(map(len, self._stops), default=1) - 1  # characters held back at most
        self._first_signs = frozenset(stop[0] for stop in self._stops)
        self._include = include
        self._held = ""
        self.matched: str | None = None  # the stop string that ended the text

    @property
    def matched_index(self) -> int:
        """Of `matched` among the stop strings; -1: none."""
        return -1 if self.matched is None else self._given.index(self.matched)

    def push(self, text: str) -> str:
        """The text that may be sent now; always empty after a match."""
        if self.matched is not None:
            return ""
        if not self._stops:
            return text
        self._held += text
        return self._cut_at_match() if self._find_match() else self._release()

    def finish(self) -> str:
        """The text that was held back when the stream ends without a match."""
        text, self._held = self._held, ""
        return text

    def _find_match(self) -> bool:
        ends = [(start + len(stop), start, stop) for stop in self._stops if (start := self._held.find(stop)) >= 0]
        if ends:
            self.matched = min(ends)[2]
        return bool(ends)

    def _cut_at_match(self) -> str:
        assert self.matched is not None
        start = self._held.find(self.matched)
        text = self._held[: start + len(self.matched) if self._include else start]
        self._held = ""
        return text

    def _release(self) -> str:
        kept = self._longest_possible_beginning()
        text, self._held = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
        return text

    def _longest_possible_beginning(self) -> int:
        """Length of the longest end of the held text with which some stop string begins."""
        longest = min(len(self._held), self.memory)
        for length in range(longest, 0, -1):
            if self._held[-length] in self._first_signs:  # spares most of the comparisons
                tail = self._held[-length:]
                if any(stop.startswith(tail) for stop in self._stops):
                    return length
        return 0
