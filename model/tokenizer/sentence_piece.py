"""tokenizer.model, through the `sentencepiece` library."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path

import sentencepiece

from model.errors import TokenizerError
from model.tokenizer.base import Tokenizer
from model.tokenizer.incremental import NOTHING, DecodingRules, InvalidBytes, Piece
from model.tokenizer.plain_text import Spans, Within
from model.tokenizer.settings import TokenizerSettings, added_ids, no_such_token
from model.tokenizer.vocabulary import SpecialTokens

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # SentencePiece's visible blank


class LeadingSpace(Enum):
    """How spaces at the beginning of a decoded text are treated; a property of the model file."""

    KEPT = "kept"
    ONE_DROPPED = "one dropped"  # it was put there by the encoder (add_dummy_prefix)
    ALL_DROPPED = "all dropped"  # remove_extra_whitespaces


class SentencePieceTokenizer(Tokenizer):
    """Decodes as the library does, except that special tokens can be shown.

    Special tokens written in a text are looked for before the rest is encoded, because SentencePiece itself
    takes them for ordinary characters; each part between two of them is encoded like a text of its own, as
    the tokenizer.json of Llama 2 does it.
    """

    def __init__(self, path: Path, settings: TokenizerSettings) -> None:
        """Raises TokenizerError for a file that is missing or malformed."""
        super().__init__(settings.chat_template, settings.class_name, settings.response_template)
        self.name = str(path)
        self.rules = DecodingRules(InvalidBytes.ONE_PER_BYTE)
        self._library = _load_processor(path)
        size: int = self._library.vocab_size()
        added = {token_id: token for token_id, token in settings.added_tokens.items() if token_id >= size}
        controls = {token_id for token_id in range(size) if self._library.is_control(token_id)}
        self.vocab_size = max([size - 1, *added]) + 1
        self._texts = {token_id: token.content for token_id, token in added.items()}
        self._texts |= {token_id: self._library.id_to_piece(token_id) for token_id in controls}
        self.added_ids = {text: token_id for token_id, text in self._texts.items()}
        self._splitter = _make_splitter(self.added_ids)
        hidden = controls | {token_id for token_id, token in added.items() if token.special}
        self.special = self._special_tokens(settings, frozenset(hidden))
        # Llama's convention where no file says anything: BOS, but no EOS.
        self._before = added_ids(settings.add_bos, "bos_token", self.bos_id, default=True)
        self._after = added_ids(settings.add_eos, "eos_token", self.eos_id, default=False)
        self._leading_space = _probe_leading_space(self._library)
        self.place_matters = self._leading_space is not LeadingSpace.KEPT
        self._unknown: str = self._library.decode([self._library.unk_id()])

    def _encode(self, text: str, add_special: bool) -> list[int]:
        return self._encode_with_plain(text, add_special, ())

    def _encode_with_plain(self, text: str, add_special: bool, plain: Spans) -> list[int]:
        ids: list[int] = []
        within, at = Within(plain), 0
        for found in self._splitter.finditer(text) if self._splitter else ():
            if not within(*found.span()):
                ids += [*self._encode_part(text[at : found.start()]), self.added_ids[found[0]]]
                at = found.end()
        ids += self._encode_part(text[at:])
        return [*self._before, *ids, *self._after] if add_special else ids

    def _encode_part(self, part: str) -> list[int]:
        ids: list[int] = self._library.encode(part) if part else []
        return ids

    def _piece(self, token_id: int, at_start: bool, skip_special: bool) -> Piece:
        if skip_special and token_id in self.special.all_ids:
            return Piece(keeps_start=True, breaks=True)
        if (text := self._texts.get(token_id)) is not None:
            return Piece(text.encode())
        if token_id >= self._library.vocab_size():  # a gap between added tokens
            return NOTHING
        return self._ordinary_piece(token_id, at_start)

    def _ordinary_piece(self, token_id: int, at_start: bool) -> Piece:
        if self._library.is_unknown(token_id):
            return Piece(self._unknown.encode())
        text: str = self._library.id_to_piece(token_id)
        if self._library.is_byte(token_id):
            return Piece(bytes.fromhex(text[3:5]))  # "<0xE4>"
        if at_start and self._leading_space is not LeadingSpace.KEPT:
            text = text.removeprefix(SPACE)
        keeps_start = not text and self._leading_space is LeadingSpace.ALL_DROPPED
        return Piece(text.replace(SPACE, " ").encode(), keeps_start=keeps_start)

    def _special_tokens(self, settings: TokenizerSettings, hidden: frozenset[int]) -> SpecialTokens:
        bos = self._named_id(settings, "bos_token", self._library.bos_id())
        eos = self._named_id(settings, "eos_token", self._library.eos_id())
        ends = {end for end in settings.end_ids if end < self.vocab_size}
        return SpecialTokens(
            bos_id=bos,
            eos_id=eos,
            pad_id=self._named_id(settings, "pad_token", self._library.pad_id()),
            eos_ids=frozenset(ends if eos is None else ends | {eos}),
            all_ids=hidden,
        )

    def _named_id(self, settings: TokenizerSettings, name: str, own_id: int) -> int | None:
        """The token that tokenizer_config.json names, else the model file's own (-1: it has none)."""
        content = settings.named_tokens.get(name)
        if content is None:
            return own_id if own_id >= 0 else None
        if content in self.added_ids:
            return self.added_ids[content]
        token_id: int = self._library.piece_to_id(content)
        if self._library.id_to_piece(token_id) != content:
            raise no_such_token(name, content, self.name)
        return token_id


def _load_processor(path: Path) -> sentencepiece.SentencePieceProcessor:
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    except OSError as error:
        raise TokenizerError(f"cannot read {path}: {error.strerror}") from error
    except RuntimeError as error:
        raise TokenizerError(
            f"{path} is not a SentencePiece model: it is truncated or another kind of file; download it again"
        ) from error


def _make_splitter(texts: dict[str, int]) -> re.Pattern[str] | None:
    """Splits so that the special tokens are parts of their own; of two that match, the longer one counts."""
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})") if texts else None


def _probe_leading_space(library: sentencepiece.SentencePieceProcessor) -> LeadingSpace:
    """Ask the library, since its Python interface does not show the model's normaliser settings."""
    space = library.piece_to_id(SPACE)
    spaced: int | None = space
    if library.is_unknown(space):
        pieces = ((token_id, library.id_to_piece(token_id)) for token_id in range(library.vocab_size()))
        spaced = next((token_id for token_id, piece in pieces if piece.startswith(SPACE)), None)
    if spaced is None or library.decode([spaced]).startswith(" "):
        return LeadingSpace.KEPT
    if spaced == space and not library.decode([space, space]):
        return LeadingSpace.ALL_DROPPED
    return LeadingSpace.ONE_DROPPED
