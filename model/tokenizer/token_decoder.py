"""The `decoder` of a tokenizer.json, token by token.

The decoders of Llama's relatives work on each token alone, but for two things: leading spaces, and bytes of
one character in several tokens. `IncrementalDetokenizer` does these two; here is the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from model.errors import TokenizerError
from model.tokenizer.incremental import DecodingRules, InvalidBytes

BYTE_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")
SUPPORTED = "ByteLevel, or a Sequence of Replace, ByteFallback, Fuse, Strip and Metaspace"


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins of bytes: printable Latin-1 stands for itself, the rest follows."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + index): byte for index, byte in enumerate(others)}


@dataclass(frozen=True, slots=True)
class TokenDecoder:
    """How the text of a token in the vocabulary becomes bytes of the text it stands for."""

    rules: DecodingRules
    alphabet: Mapping[str, int] | None = None  # byte-level: a character of the token → a byte
    replacements: tuple[tuple[str, str], ...] = ()
    byte_fallback: bool = False
    leading_space: str | None = None  # Metaspace drops this sign from the first token

    def decode(self, token: str, *, at_start: bool, added: bool) -> bytes:
        """``added`` tokens stand outside the byte-level alphabet and are meant as they are written."""
        if self.alphabet is not None and not added and all(sign in self.alphabet for sign in token):
            return bytes([self.alphabet[sign] for sign in token])
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
        return TokenDecoder(DecodingRules(InvalidBytes.ONE_PER_SEQUENCE), alphabet=_byte_level_alphabet())
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
