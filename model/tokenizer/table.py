"""A vocabulary without its tokenizer: the bytes of all tokens in one table, for processes that encode nothing.

A process that has loaded a tokenizer packs it (`pack_vocabulary`); others read it where it lies, in memory that they
share (`TokenTable`). What a token adds to a text depends on whether it stands at the beginning and whether special
tokens are shown, so there are four parts. The first has every token, each other one only those that differ.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from model.errors import TokenizerError
from model.tokenizer.base import Tokenizer
from model.tokenizer.chat import ChatTemplate
from model.tokenizer.incremental import NOTHING, DecodingRules, Piece
from model.tokenizer.vocabulary import SpecialTokens, Vocabulary

_HEAD = struct.Struct("<8sQ")  # and the length of the facts, which follow; then the parts
_MAGIC = b"RSVOCAB1"
_KEEPS_START, _BREAKS = 1, 2  # flags of a token
_ROW_BYTES = 4 + 4 + 1  # id, end of its bytes, flags

_SHOWN, _SHOWN_AT_START, _SKIPPED, _SKIPPED_AT_START = range(4)
_LOOKED_UP = {  # by `at_start` and `skip_special`: what is in none is as in the next
    (False, False): (_SHOWN,),
    (True, False): (_SHOWN_AT_START, _SHOWN),
    (False, True): (_SKIPPED, _SHOWN),
    (True, True): (_SKIPPED_AT_START, _SHOWN_AT_START, _SHOWN),
}


class _Template(msgspec.Struct, frozen=True):
    source: str
    special_tokens: dict[str, str]
    origin: str
    tool_use: _Template | None

    @classmethod
    def of(cls, template: ChatTemplate | None) -> _Template | None:
        if template is None:
            return None
        return cls(template.source, dict(template.special_tokens), template.origin, cls.of(template.tool_use))

    def without_paths(self) -> _Template:
        return msgspec.structs.replace(self, origin="", tool_use=self.tool_use and self.tool_use.without_paths())

    def compiled(self) -> ChatTemplate:
        tool_use = self.tool_use.compiled() if self.tool_use else None
        return ChatTemplate(self.source, self.special_tokens, self.origin, tool_use)


class _Facts(msgspec.Struct, frozen=True):
    """All but the tokens. ``parts``: how many tokens and how many bytes each part has."""

    name: str
    vocab_size: int
    class_name: str | None
    response_template: dict[str, Any] | None
    template: _Template | None
    special: SpecialTokens
    rules: DecodingRules
    added_ids: dict[str, int]
    parts: list[tuple[int, int]]

    def pack(self) -> bytes:
        """As ASCII: a path may hold bytes that are not UTF-8."""
        return json.dumps(msgspec.to_builtins(self)).encode()

    @classmethod
    def unpack(cls, packed: bytes) -> _Facts:
        """Raises ValueError."""
        return msgspec.convert(json.loads(packed), cls)

    def without_paths(self) -> _Facts:
        """The same for the same tokenizer in another folder."""
        return msgspec.structs.replace(self, name="", template=self.template and self.template.without_paths())

    @property
    def size(self) -> int:
        """Bytes of the parts."""
        return sum(count * _ROW_BYTES + data for count, data in self.parts)


@dataclass(frozen=True, slots=True)
class _Part:
    """Tokens in the order of their ids, and the bytes of each behind those of the one before."""

    ids: Sequence[int]
    ends: Sequence[int]
    flags: bytes | memoryview
    data: bytes | memoryview

    @classmethod
    def of(cls, pieces: Mapping[int, Piece]) -> _Part:
        ends = tuple(itertools.accumulate(len(piece.data) for piece in pieces.values()))
        flags = bytes(_KEEPS_START * piece.keeps_start | _BREAKS * piece.breaks for piece in pieces.values())
        return cls(tuple(pieces), ends, flags, b"".join(piece.data for piece in pieces.values()))

    def pack(self) -> bytes:
        ids, ends = (np.array(column, np.int32).tobytes() for column in (self.ids, self.ends))
        return b"".join((ids, ends, self.flags, self.data))

    @classmethod
    def view(cls, packed: memoryview, count: int) -> _Part:
        """Raises ValueError for ids that are not in order, and for bytes that are not there."""
        ids, ends, flags = packed[: 4 * count].cast("i"), packed[4 * count : 8 * count].cast("i"), packed[8 * count :]
        part = cls(ids, ends, flags[:count], flags[count:])
        if (np.diff(np.asarray(ids), prepend=-1) <= 0).any() or (np.diff(np.asarray(ends), prepend=0) < 0).any():
            raise ValueError("tokens are not in order")
        if (ends[-1] if count else 0) != len(part.data):
            raise ValueError("the tokens' bytes do not add up")
        return part

    def find(self, token_id: int) -> Piece | None:
        at = bisect_left(self.ids, token_id)
        if at == len(self.ids) or self.ids[at] != token_id:
            return None
        flags = self.flags[at]
        data = bytes(self.data[self.ends[at - 1] if at else 0 : self.ends[at]])
        return Piece(data, bool(flags & _KEEPS_START), bool(flags & _BREAKS))


def pack_vocabulary(tokenizer: Tokenizer) -> bytes:
    """All that a `TokenTable` needs. Some 2 MB and half a second for 128,000 tokens."""
    parts = [_Part.of(pieces) for pieces in _pieces(tokenizer)]
    facts = _Facts(
        name=tokenizer.name,
        vocab_size=tokenizer.vocab_size,
        class_name=tokenizer.class_name,
        response_template=None if tokenizer.response_template is None else dict(tokenizer.response_template),
        template=_Template.of(tokenizer.template),
        special=tokenizer.special,
        rules=tokenizer.rules,
        added_ids=dict(tokenizer.added_ids),
        parts=[(len(part.ids), len(part.data)) for part in parts],
    ).pack()
    return b"".join((_HEAD.pack(_MAGIC, len(facts)), facts, *(part.pack() for part in parts)))


def _pieces(tokenizer: Tokenizer) -> Iterable[Mapping[int, Piece]]:
    """Of each part."""
    every, hidden = range(tokenizer.vocab_size), sorted(tokenizer.special_ids)
    shown = _read(tokenizer, every, at_start=False, skip_special=False)
    yield shown
    at_start = _read(tokenizer, every if tokenizer.place_matters else (), at_start=True, skip_special=False)
    yield {token_id: piece for token_id, piece in at_start.items() if piece != shown[token_id]}
    yield _read(tokenizer, hidden, at_start=False, skip_special=True)
    yield _read(tokenizer, hidden, at_start=True, skip_special=True)


def _read(tokenizer: Tokenizer, ids: Sequence[int], *, at_start: bool, skip_special: bool) -> dict[int, Piece]:
    return dict(zip(ids, tokenizer.pieces(ids, at_start=at_start, skip_special=skip_special), strict=True))


class TokenTable(Vocabulary):
    """As the tokenizer that was packed, but for encoding."""

    def __init__(self, packed: memoryview) -> None:
        """Reads tokens from the memory given, which must not change. Raises TokenizerError for one that does not
        hold what `pack_vocabulary` makes."""
        try:
            facts, self._parts = _unpack(packed)
        except (ValueError, struct.error) as error:
            raise TokenizerError(f"the vocabulary that was handed over is damaged: {error}") from error
        template = facts.template.compiled() if facts.template else None
        super().__init__(template, facts.class_name, facts.response_template)
        self.name, self.vocab_size, self.special, self.rules = (
            facts.name,
            facts.vocab_size,
            facts.special,
            facts.rules,
        )
        self.added_ids = facts.added_ids
        self.name_template_tokens()

    def _piece(self, token_id: int, at_start: bool, skip_special: bool) -> Piece:
        found = (self._parts[part].find(token_id) for part in _LOOKED_UP[at_start, skip_special])
        return next((piece for piece in found if piece is not None), NOTHING)


def fingerprint(packed: memoryview) -> str:
    """Of what `pack_vocabulary` makes: wherever the tokenizer's files are, whatever they are called."""
    facts, _ = _unpack(packed)
    digest = hashlib.sha256(facts.without_paths().pack())
    digest.update(packed[len(packed) - facts.size :])
    return digest.hexdigest()[:32]


def _unpack(packed: memoryview) -> tuple[_Facts, list[_Part]]:
    magic, length = _HEAD.unpack_from(packed)
    at = _HEAD.size + length
    if magic != _MAGIC or at > len(packed):
        raise ValueError("it does not begin as one")
    facts = _Facts.unpack(bytes(packed[_HEAD.size : at]))
    if len(facts.parts) != len(_LOOKED_UP) or at + facts.size != len(packed):
        raise ValueError(f"it has {len(packed)} bytes in place of {at + facts.size}")
    parts = []
    for count, data in facts.parts:
        end = at + count * _ROW_BYTES + data
        parts.append(_Part.view(packed[at:end], count))
        at = end
    return facts, parts
