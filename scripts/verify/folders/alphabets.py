"""Tokenizers so small that what each of their tokens stands for is known without any library."""

from __future__ import annotations

import base64
import codecs
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece

_NAMED = ("<unk>", "<s>", "</s>")
_LETTERS = ("abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_PAIRS = tuple(letters[at : at + 2] for letters in _LETTERS for at in range(0, 26, 2))
"""Two letters that the alphabet of bytes has as one token: "ab", "cd", … "YZ"."""
_BEGIN, _END = 318, 319  # the last of its tokens: bytes, pairs, others that no text has, these two


@dataclass(frozen=True, slots=True)
class Alphabet:
    """``tokens``: what each id stands for. ``hidden``: ids that are in no text."""

    tokens: tuple[bytes, ...]
    hidden: frozenset[int]
    write: Callable[[Path], None]  # the files that a folder has of it

    def name(self, token_id: int) -> str:
        return self.tokens[token_id].decode(errors="replace")

    def text(self, ids: Iterable[int], before: Iterable[int] = ()) -> str:
        """What the ids add behind others, whose last character may be unfinished."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.decode(self._bytes(before))
        return decoder.decode(self._bytes(ids), final=True)

    def _bytes(self, ids: Iterable[int]) -> bytes:
        return b"".join(self.tokens[it] for it in ids if it not in self.hidden)


def _signs() -> list[str]:
    """A sign for every id, but for the first three."""
    return [*_NAMED, *(chr(0x4E00 + number) for number in range(len(_NAMED), 256))]


@cache
def signs() -> Alphabet:
    """256 signs, by a tokenizer.json."""
    tokens = tuple(sign.encode() for sign in _signs())
    return Alphabet(tokens, frozenset(range(len(_NAMED))), _write_signs)


def _write_signs(folder: Path) -> None:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    model = {"type": "BPE", "unk_token": _NAMED[0], "fuse_unk": False, "byte_fallback": False, "merges": []}
    document = {
        "version": "1.0",
        "added_tokens": [{"id": at, "content": name, **flags} for at, name in enumerate(_NAMED)],
        "decoder": {"type": "Sequence", "decoders": [{"type": "Fuse"}]},
        "model": {**model, "vocab": {sign: at for at, sign in enumerate(_signs())}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")


@cache
def sentence_piece() -> Alphabet:
    """The same signs, by a tokenizer.model alone."""
    return Alphabet(signs().tokens, signs().hidden, _write_sentence_piece)


def _write_sentence_piece(folder: Path) -> None:
    """The trainer numbers signs by how often they occur."""
    lines = (sign * (300 - at) for at, sign in enumerate(_signs()) if at >= len(_NAMED))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines,
        model_prefix=str(folder / "tokenizer"),
        model_type="char",
        vocab_size=256,
        character_coverage=1.0,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    _write_config(folder, {"add_bos_token": False})


# ---- bytes -----------------------------------------------------------------------------------------------------


def ranks(place: str = "tokenizer.model") -> Alphabet:
    """Bytes and pairs of letters, by tiktoken's ranks, as Llama 3's original files have them."""
    return Alphabet(_byte_tokens(), frozenset(_others()), lambda folder: _write_ranks(folder / place, folder))


def vocabulary() -> Alphabet:
    """The same by vocab.json and merges.txt."""
    return Alphabet(_byte_tokens(), frozenset(_others()), _write_vocabulary)


def _others() -> dict[int, str]:
    first = 256 + len(_PAIRS)
    names = {at: f"<|other_{at}|>" for at in range(first, _BEGIN)}
    return {**names, _BEGIN: "<|begin_of_text|>", _END: "<|end_of_text|>"}


def _byte_tokens() -> tuple[bytes, ...]:
    texts = [*_PAIRS, *_others().values()]
    return (*(bytes([byte]) for byte in range(256)), *(text.encode() for text in texts))


def _write_ranks(file: Path, folder: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    lines = (f"{base64.b64encode(it).decode()} {at}\n" for at, it in enumerate(_byte_tokens()[: 256 + len(_PAIRS)]))
    file.write_text("".join(lines))
    _write_config(folder, {"add_bos_token": False, **_added()})


def _write_vocabulary(folder: Path) -> None:
    shown = [_shown(byte) for byte in range(256)]
    vocab = {text: at for at, text in enumerate([*shown, *_PAIRS])}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    merges = "".join(f"{pair[0]} {pair[1]}\n" for pair in _PAIRS)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}")
    _write_config(folder, {"tokenizer_class": "GPT2Tokenizer", **_added()})


def _added() -> dict[str, Any]:
    return {"added_tokens_decoder": {str(at): {"content": name, "special": True} for at, name in _others().items()}}


def _write_config(folder: Path, config: dict[str, Any]) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))


def _shown(byte: int) -> str:
    """GPT-2's stand-in: printable Latin-1 is itself, the others follow from U+0100 on."""
    if byte in _PRINTABLE:
        return chr(byte)
    return chr(256 + [it for it in range(256) if it not in _PRINTABLE].index(byte))


def pairs_encoded(text: str) -> list[int]:
    """Ids of a text of ASCII in the alphabet of bytes."""
    ids, at = [], 0
    while at < len(text):
        pair = text[at : at + 2]
        ids.append(256 + _PAIRS.index(pair) if pair in _PAIRS else ord(text[at]))
        at += 2 if pair in _PAIRS else 1
    return ids
