"""tokenizer.json, through the `tokenizers` library; its `decoder` token by token.

The decoders of Llama's relatives work on each token alone, but for two things: leading spaces, and bytes of
one character in several tokens. `IncrementalDetokenizer` does these two; here is the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from model.errors import TokenizerError
from model.tokenizer.alphabet import byte_level_alphabet
from model.tokenizer.base import Tokenizer
from model.tokenizer.incremental import NOTHING, DecodingRules, InvalidBytes, Piece
from model.tokenizer.plain_text import Spans, Within
from model.tokenizer.segments import LEAST, SegmentCache, marks_of
from model.tokenizer.settings import TokenizerSettings, added_ids, no_such_token, read_json
from model.tokenizer.vocabulary import SpecialTokens

# The library's own threads would take CPUs from the model; a batch of one has no use for them.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

BYTE_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")
SUPPORTED = "ByteLevel, or a Sequence of Replace, ByteFallback, Fuse, Strip and Metaspace"


class HuggingFaceTokenizer(Tokenizer):
    def __init__(self, path: Path, settings: TokenizerSettings, content: Mapping[str, Any] | None = None) -> None:
        """``content`` stands in place of the file's where that is no tokenizer.json.

        Raises TokenizerError for a file that is missing or malformed, or has an unsupported decoder."""
        super().__init__(settings.chat_template, settings.class_name, settings.response_template)
        self.name = str(path)
        document = read_json(path) if content is None else content
        self._library = _load_library_tokenizer(path, content)
        self._mark_special(settings)
        self._decoder = read_decoder(document, self.name)
        self._added = self._library.get_added_tokens_decoder()
        self.added_ids = {token.content: token_id for token_id, token in self._added.items()}
        self.rules = self._decoder.rules
        self.place_matters = self._decoder.leading_space is not None
        self.vocab_size = max(self._library.get_vocab().values(), default=-1) + 1
        self.special = self._special_tokens(settings)
        # As in transformers' Llama tokenizer, explicit settings go before tokenizer.json's post-processor.
        self._explicit = settings.add_bos is not None or settings.add_eos is not None
        self._before = added_ids(settings.add_bos, "bos_token", self.bos_id, default=False)
        self._after = added_ids(settings.add_eos, "eos_token", self.eos_id, default=False)
        self._spelled = self._spell_special()
        self._segments: SegmentCache | None = None
        self._wraps = wrapping(document.get("post_processor"), self._plain_and_wrapped())

    def remember(self, capacity: int) -> None:
        marks = marks_of(self._added.values())
        if capacity and marks is not None and (self._explicit or self._wraps is not None):
            self._segments = SegmentCache(marks, self._encode_all, capacity)

    def _encode_all(self, texts: list[str]) -> list[NDArray[np.int32]]:
        encodings = self._library.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, np.int32) for encoding in encodings]

    def _plain_and_wrapped(self) -> tuple[list[int], list[int]]:
        """Ids of a text, without what the post-processor puts around it and with that."""
        plain, wrapped = (self._library.encode("a", add_special_tokens=special).ids for special in (False, True))
        return plain, wrapped

    def _encode(self, text: str, add_special: bool) -> list[int]:
        ids: list[int] = self._encoding(text, add_special).ids
        return [*self._before, *ids, *self._after] if add_special and self._explicit else ids

    def _encode_with_plain(self, text: str, add_special: bool, plain: Spans) -> list[int]:
        """Special tokens part a text, so that what is around them does not depend on what stands for them."""
        add_bos = add_special and not self._explicit
        (encoding,) = self._library.encode_batch([text], add_special_tokens=add_bos)
        ids: list[int] = []
        within = Within(plain)
        for token_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            spelled = self._spelled.get(token_id)
            ids += [token_id] if spelled is None or not within(start, end) else spelled
        return [*self._before, *ids, *self._after] if add_special and self._explicit else ids

    def _spell_special(self) -> dict[int, list[int]]:
        """Ids of the texts of special tokens, as any text's. To be called before other threads encode."""
        self._library.encode_special_tokens = True
        try:
            return {token_id: self._inside(self._added[token_id].content) for token_id in self.special.all_ids}
        finally:
            self._library.encode_special_tokens = False

    def _inside(self, text: str) -> list[int]:
        """Behind another text, since some tokenizers begin each with a blank."""
        before: list[int] = self._library.encode("\n", add_special_tokens=False).ids
        behind: list[int] = self._library.encode("\n" + text, add_special_tokens=False).ids
        if behind[: len(before)] == before:
            return behind[len(before) :]
        ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        return ids

    def _encode_up_to(self, text: str, most: int, add_special: bool) -> tuple[int, NDArray[np.int32]]:
        if self._segments is not None and len(text) >= LEAST:
            return self._encode_segments(self._segments, text, most, add_special)
        encoding, explicit = self._encoding(text, add_special), add_special and self._explicit
        before, after = (self._before, self._after) if explicit else ([], [])
        count = len(encoding) + len(before) + len(after)  # a list of the ids would take longer than to count them
        return count, np.array([*before, *encoding.ids, *after] if count <= most else (), np.int32)

    def _encode_segments(
        self, segments: SegmentCache, text: str, most: int, add_special: bool
    ) -> tuple[int, NDArray[np.int32]]:
        around = (self._before, self._after) if self._explicit else self._wraps
        before, after = around if add_special and around is not None else ([], [])
        ids = segments.ids(text)
        count = len(ids) + len(before) + len(after)
        if count > most:
            return count, np.zeros(0, np.int32)
        whole = [np.array(before, np.int32), ids, np.array(after, np.int32)]
        return count, np.concatenate(whole) if before or after else ids

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
            raise no_such_token(name, content, self.name)
        return token_id


_WRAPPING = ("ByteLevel", "TemplateProcessing", "BertProcessing", "RobertaProcessing")


def wrapping(processor: object, encoded: tuple[list[int], list[int]]) -> tuple[list[int], list[int]] | None:
    """Ids that a post-processor puts before and behind every text; None: it is not known to do nothing else.
    `encoded`: ids of a text without them and with them."""
    steps = processor.get("processors", [processor]) if isinstance(processor, Mapping) else []
    plain, wrapped = encoded
    places = [begin for begin in range(len(wrapped)) if wrapped[begin : begin + len(plain)] == plain]
    if len(places) != 1 or any(step.get("type") not in _WRAPPING for step in steps):
        return None
    return wrapped[: places[0]], wrapped[places[0] + len(plain) :]


def _load_library_tokenizer(path: Path, content: Mapping[str, Any] | None) -> tokenizers.Tokenizer:
    kind = tokenizers.Tokenizer
    try:
        library = kind.from_file(str(path)) if content is None else kind.from_str(json.dumps(content))
    except Exception as error:  # the library raises nothing more precise
        raise TokenizerError(
            f"{path} is not a tokenizer.json that tokenizers {tokenizers.__version__} can read: {error}"
        ) from error
    # Some files carry the cutting and padding of their training; a prompt must be neither cut nor padded.
    library.no_truncation()
    library.no_padding()
    return library


class _Bytes(dict[int, int]):
    """For `str.translate`: characters to those of Latin-1, which are bytes."""

    @classmethod
    def of_byte_level(cls) -> _Bytes:
        return cls({ord(sign): byte for sign, byte in byte_level_alphabet().items()})

    def __missing__(self, sign: int) -> int:
        return 0x100  # no byte


@dataclass(frozen=True, slots=True)
class TokenDecoder:
    """How the text of a token in the vocabulary becomes bytes of the text it stands for."""

    rules: DecodingRules
    alphabet: Mapping[int, int] | None = None  # byte-level: a character of the token → a byte, others → none
    replacements: tuple[tuple[str, str], ...] = ()
    byte_fallback: bool = False
    leading_space: str | None = None  # Metaspace drops this sign from the first token

    def decode(self, token: str, *, at_start: bool, added: bool) -> bytes:
        """``added`` tokens stand outside the byte-level alphabet and are meant as they are written."""
        if self.alphabet is not None and not added:
            with contextlib.suppress(UnicodeEncodeError):  # a sign that is none of the alphabet
                return token.translate(self.alphabet).encode("latin-1")
        if self.byte_fallback and (match := BYTE_TOKEN.fullmatch(token)):
            return bytes.fromhex(match[1])
        if at_start and self.leading_space:
            token = token.replace(self.leading_space, "")
        for old, new in self.replacements:
            token = token.replace(old, new)
        return token.encode()


def read_decoder(tokenizer_json: Mapping[str, Any], name: str) -> TokenDecoder:
    """Raises TokenizerError for a decoder that is not supported, before any text is lost through it."""
    steps = list(_flatten(tokenizer_json.get("decoder")))
    if any(step.get("type") == "ByteLevel" for step in steps):
        _refuse_others(steps, {"ByteLevel", "Fuse"}, name)
        return TokenDecoder(DecodingRules(InvalidBytes.ONE_PER_SEQUENCE), alphabet=_Bytes.of_byte_level())
    _refuse_others(steps, {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}, name)
    metaspaces = [step for step in steps if step["type"] == "Metaspace"]
    replacements = [_replacement(step, name) for step in steps if step["type"] == "Replace"]
    return TokenDecoder(
        DecodingRules(InvalidBytes.ONE_PER_BYTE, strip_left=_strip_left(steps, name)),
        replacements=(*replacements, *((step["replacement"], " ") for step in metaspaces)),
        byte_fallback=any(step["type"] == "ByteFallback" for step in steps),
        leading_space=next((step["replacement"] for step in metaspaces if _drops_leading(step)), None),
    )


def _flatten(decoder: object) -> Iterator[Mapping[str, Any]]:
    if not isinstance(decoder, Mapping):
        return
    if decoder.get("type") == "Sequence":
        for step in decoder.get("decoders", []):
            yield from _flatten(step)
    else:
        yield decoder


def _refuse_others(steps: list[Mapping[str, Any]], known: set[str], name: str) -> None:
    unknown = [str(step.get("type")) for step in steps if step.get("type") not in known]
    if unknown or not steps:
        found = ", ".join(unknown) if unknown else "none at all"
        raise TokenizerError(f"{name}: unsupported decoder ({found}); supported are {SUPPORTED}")


def _replacement(step: Mapping[str, Any], name: str) -> tuple[str, str]:
    pattern = step["pattern"].get("String")
    if pattern is None:
        raise TokenizerError(f"{name}: a Replace decoder with a regular expression is not supported; use a String")
    return pattern, step["content"]


def _strip_left(steps: list[Mapping[str, Any]], name: str) -> int:
    """Strip counts after Fuse, that is on the whole text; anything else than leading spaces is unheard of."""
    strips = [(index, step) for index, step in enumerate(steps) if step["type"] == "Strip"]
    for index, step in strips:
        fused = any(before["type"] == "Fuse" for before in steps[:index])
        if not fused or step["content"] != " " or step["stop"] != 0:
            raise TokenizerError(f"{name}: a Strip decoder is supported only for leading spaces, after Fuse")
    return sum(int(step["start"]) for _, step in strips)


def _drops_leading(metaspace: Mapping[str, Any]) -> bool:
    """`prepend_scheme` replaced `add_prefix_space` in version 0.15 of the tokenizers library."""
    if "prepend_scheme" in metaspace:
        return bool(metaspace["prepend_scheme"] != "never")
    return bool(metaspace.get("add_prefix_space", True))
