"""Long texts in segments whose token ids are remembered: system prompts come again and again.

A text is cut only in front of special tokens that are written in it, where the library itself parts it before
anything else is done: what stands before does not depend on what stands behind, nor the other way round. So the ids
of a text are those of its segments, each encoded alone, one behind the other.
"""

from __future__ import annotations

import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

LEAST = 2048
"""Characters of a segment that is worth remembering; shorter ones are encoded sooner than looked up."""

_LARGEST = 4  # a segment may take this part of the memory: a quarter

Ids = NDArray[np.int32]


class AddedToken(Protocol):
    """As the `tokenizers` library has it."""

    @property
    def content(self) -> str: ...
    @property
    def lstrip(self) -> bool: ...
    @property
    def single_word(self) -> bool: ...
    @property
    def normalized(self) -> bool: ...


def marks_of(tokens: Iterable[AddedToken]) -> re.Pattern[str] | None:
    """The tokens in front of which a text may be cut; None: there are none."""
    tokens = list(tokens)
    contents = [token.content for token in tokens if token.content]
    marks = [token.content for token in tokens if _stands_alone(token) and _is_apart(token.content, contents)]
    return re.compile("|".join(map(re.escape, sorted(marks, key=len, reverse=True)))) if marks else None


def _stands_alone(token: AddedToken) -> bool:
    """It is found in the text as it is, whatever stands before it, and takes nothing of that. No letter at its
    beginning makes what stands before it another word."""
    plain = not (token.lstrip or token.single_word or token.normalized)
    return plain and bool(re.match(r"[^\w\s]", token.content)) and token.content == token.content.strip()


def _is_apart(mark: str, contents: Iterable[str]) -> bool:
    """No token that begins before the mark can reach into it, or over it."""
    return not any(
        token.startswith(mark, begin) or mark.startswith(token[begin:])
        for token in contents
        for begin in range(1, len(token))
    )


class SegmentCache:
    """Any thread may call it. `encode` gives the ids of each of several texts, without BOS and EOS; `capacity` is in
    bytes."""

    def __init__(self, marks: re.Pattern[str], encode: Callable[[list[str]], Sequence[Ids]], capacity: int) -> None:
        self._marks, self._encode, self._capacity = marks, encode, capacity
        self._known: OrderedDict[str, Ids] = OrderedDict()  # the most recently used last
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        return self._bytes

    def ids(self, text: str) -> Ids:
        """Of the text, without BOS and EOS."""
        segments = self._segments(text)
        found = [self._find(segment) for segment in segments]
        unknown = [segment for segment, ids in zip(segments, found, strict=True) if ids is None]
        fresh = iter(self._encode(unknown) if unknown else ())
        ids = [next(fresh) if known is None else known for known in found]
        for segment, own in zip(segments, ids, strict=True):
            self._remember(segment, own)
        return ids[0] if len(ids) == 1 else np.concatenate(ids)

    def _segments(self, text: str) -> list[str]:
        """Long ones, and between them as much as there is."""
        cuts = [0, *(found.start() for found in self._marks.finditer(text) if found.start()), len(text)]
        borders = [0]
        for begin, end in pairwise(cuts):
            if end - begin >= LEAST:
                borders += [begin, end] if begin > borders[-1] else [end]
        if len(text) > borders[-1] or len(borders) == 1:
            borders.append(len(text))
        return [text[begin:end] for begin, end in pairwise(borders)]

    def _find(self, segment: str) -> Ids | None:
        if len(segment) < LEAST:
            return None
        with self._lock:
            ids = self._known.get(segment)
            if ids is not None:
                self._known.move_to_end(segment)
            return ids

    def _remember(self, segment: str, ids: Ids) -> None:
        size = _size(segment, ids)
        if len(segment) < LEAST or size > self._capacity // _LARGEST:
            return
        with self._lock:
            if segment in self._known:
                return
            ids.flags.writeable = False
            self._known[segment] = ids
            self._bytes += size
            while self._bytes > self._capacity:
                self._bytes -= _size(*self._known.popitem(last=False))


def _size(segment: str, ids: Ids) -> int:
    return sys.getsizeof(segment) + ids.nbytes
