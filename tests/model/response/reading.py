"""Answers as a server sees them: token by token, with text that comes with its token or later."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from random import Random

from model.response.format import Kind, Mark, Opened, Piece, ResponseFormat
from model.response.presets import REASONING, TOOLS, with_ids
from model.response.reader import ResponseReader

REFERENCE = json.loads((Path(__file__).parents[1] / "data" / "responses.json").read_text())
TEMPLATES, CASES = REFERENCE["templates"], REFERENCE["cases"]
ORDINARY = 7
FIRST_ID = 1000
NAMES = ("find", "store", "find_all")
SINGLE = (Kind.CALL_BEGIN, Kind.CALL_END)
Token = tuple[str, int]


class Vocabulary:
    """A tokenizer that has these texts as added tokens."""

    chat_templates = ""
    response_template = None

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    @property
    def special_ids(self) -> frozenset[int]:
        return frozenset(range(FIRST_ID, FIRST_ID + len(self.texts)))

    def added_token_id(self, text: str) -> int | None:
        return FIRST_ID + self.texts.index(text) if text in self.texts else None

    def token_text(self, token_id: int) -> str:
        return self.texts[token_id - FIRST_ID]


def preset(tools: str, *, reasoning: str = "think", added: Collection[str] = ()) -> ResponseFormat:
    chosen = ResponseFormat(f"{tools}+{reasoning}", REASONING.get(reasoning), TOOLS.get(tools, ()))
    return with_ids(chosen, Vocabulary(*added))


def marks_of(format: ResponseFormat) -> list[Mark]:
    parts = [*format.calls, *filter(None, [format.reasoning])]
    return [*(mark for part in parts for mark in (*part.opens, *part.closes)), *format.ends, *format.text_opens]


def tokens(format: ResponseFormat, text: str, rng: Random | None = None) -> list[Token]:
    """With each mark that has an id as a token of its own; the rest as single characters, or cut at random."""
    ids = {mark.text: mark.token_id for mark in marks_of(format) if mark.token_id is not None}
    parts = re.split(f"({'|'.join(map(re.escape, ids))})", text) if ids else [text]
    return [token for part in parts for token in ([(part, ids[part])] if part in ids else _cut(part, rng))]


def _cut(text: str, rng: Random | None) -> Iterator[Token]:
    at = 0
    while at < len(text):
        size = 1 if rng is None else rng.choice((1, 1, 2, 3, 5, 8, 40))
        yield text[at : at + size], ORDINARY
        at += size


def delayed(stream: Iterable[Token], rng: Random) -> list[Token]:
    """The same tokens, with some of the text held back as stop strings do it, and bytes of characters."""
    held, out = "", []
    for text, token_id in stream:
        held += text
        free = len(held) if rng.random() < 0.6 else rng.randint(0, len(held))
        out.append((held[:free], token_id))
        held = held[free:]
    return [*out, (held, ORDINARY)]


def read(
    format: ResponseFormat,
    stream: Iterable[Token],
    *,
    tools: Collection[str] = NAMES,
    opened: Opened = Opened.NOTHING,
) -> list[Piece]:
    """All pieces, those of one part joined; each must have been worth sending."""
    reader = ResponseReader(format, tools=tools, opened=opened)
    pieces = [piece for text, token_id in stream for piece in reader.push(text, token_id)] + reader.finish()
    assert all(bool(text) == (kind is not Kind.CALL_END) for kind, text in pieces)
    return joined(pieces)


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    out: list[Piece] = []
    for kind, text in pieces:
        if out and out[-1][0] is kind and kind not in SINGLE:
            out[-1] = (kind, out[-1][1] + text)
        else:
            out.append((kind, text))
    return out


def read_text(format: ResponseFormat, text: str, **options: object) -> list[Piece]:
    return read(format, tokens(format, text), **options)  # type: ignore[arg-type]


def call(name: str, arguments: str) -> list[Piece]:
    return [(Kind.CALL_BEGIN, name), (Kind.CALL_ARGUMENTS, arguments), (Kind.CALL_END, "")]


def text(value: str) -> list[Piece]:
    return [(Kind.TEXT, value)]


def thought(value: str) -> list[Piece]:
    return [(Kind.REASONING, value)]
