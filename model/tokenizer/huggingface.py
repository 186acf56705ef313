"""tokenizer.json, through the `tokenizers` library."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray

from model.errors import TokenizerError
from model.tokenizer.base import SpecialTokens, Tokenizer
from model.tokenizer.incremental import NOTHING, Piece
from model.tokenizer.settings import TokenizerSettings, added_ids, read_json
from model.tokenizer.token_decoder import read_decoder

# The library's own threads would take CPUs from the model; a batch of one has no use for them.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class HuggingFaceTokenizer(Tokenizer):
    def __init__(self, path: Path, settings: TokenizerSettings) -> None:
        """Raises TokenizerError for a file that is missing or malformed, or has an unsupported decoder."""
        super().__init__(settings.chat_template, settings.class_name)
        self.name = str(path)
        content = read_json(path)
        self._library = _load_library_tokenizer(path)
        self._mark_special(settings)
        self._decoder = read_decoder(content, self.name)
        self._added = self._library.get_added_tokens_decoder()
        self.rules = self._decoder.rules
        self.vocab_size = max(self._library.get_vocab().values(), default=-1) + 1
        self.special = self._special_tokens(settings)
        # As in transformers' Llama tokenizer, explicit settings go before tokenizer.json's post-processor.
        self._explicit = settings.add_bos is not None or settings.add_eos is not None
        self._before = added_ids(settings.add_bos, "bos_token", self.bos_id, default=False)
        self._after = added_ids(settings.add_eos, "eos_token", self.eos_id, default=False)

    def _encode(self, text: str, add_special: bool) -> list[int]:
        ids: list[int] = self._encoding(text, add_special).ids
        return [*self._before, *ids, *self._after] if add_special and self._explicit else ids

    def _encode_up_to(self, text: str, most: int, add_special: bool) -> tuple[int, NDArray[np.int32]]:
        encoding, explicit = self._encoding(text, add_special), add_special and self._explicit
        before, after = (self._before, self._after) if explicit else ([], [])
        count = len(encoding) + len(before) + len(after)  # a list of the ids would take longer than to count them
        return count, np.array([*before, *encoding.ids, *after] if count <= most else (), np.int32)

    def _encoding(self, text: str, add_special: bool) -> tokenizers.Encoding:
        """Unlike `encode`, this one lets other threads run, and leaves out offsets, which take most of the time."""
        (encoding,) = self._library.encode_batch_fast([text], add_special_tokens=add_special and not self._explicit)
        return encoding

    def _piece(self, token_id: int, at_start: bool, skip_special: bool) -> Piece:
        if skip_special and token_id in self.special.all_ids:
            return NOTHING
        token = self._library.id_to_token(token_id)
        if token is None:
            return NOTHING
        return Piece(self._decoder.decode(token, at_start=at_start, added=token_id in self._added))

    def _mark_special(self, settings: TokenizerSettings) -> None:
        """Tokens that have a name are special, as in transformers, even if tokenizer.json does not say so."""
        added = {token.content for token in self._library.get_added_tokens_decoder().values()}
        unmarked = [token for token in settings.named_tokens.values() if token not in added]
        self._library.add_special_tokens(
            [token for token in unmarked if self._library.token_to_id(token) is not None]
        )

    def _special_tokens(self, settings: TokenizerSettings) -> SpecialTokens:
        bos, eos, pad = (self._named_id(settings, name) for name in ("bos_token", "eos_token", "pad_token"))
        ends = {end for end in settings.end_ids if end < self.vocab_size}
        marked = {token_id for token_id, token in self._added.items() if token.special}
        return SpecialTokens(
            bos_id=bos,
            eos_id=eos,
            pad_id=pad,
            eos_ids=frozenset(ends | ({eos} if eos is not None else set())),
            all_ids=frozenset(marked),
        )

    def _named_id(self, settings: TokenizerSettings, name: str) -> int | None:
        content = settings.named_tokens.get(name)
        if content is None:
            known = settings.named_ids.get(name, self.vocab_size)
            return known if known < self.vocab_size else None
        token_id: int | None = self._library.token_to_id(content)
        if token_id is None:
            raise TokenizerError(
                f"tokenizer_config.json says that {name} is {content!r}, but {self.name} has no such token; "
                "use the two files of the same model"
            )
        return token_id


def _load_library_tokenizer(path: Path) -> tokenizers.Tokenizer:
    try:
        library = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more precise
        raise TokenizerError(
            f"{path} is not a tokenizer.json that tokenizers {tokenizers.__version__} can read: {error}"
        ) from error
    # Some files carry the cutting and padding of their training; a prompt must be neither cut nor padded.
    library.no_truncation()
    library.no_padding()
    return library
