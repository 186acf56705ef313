"""Byte-level BPE from files older than tokenizer.json: vocab.json with merges.txt, and tiktoken's table of ranks.

Both are written down as the tokenizer.json that transformers would make of them, which then is read like any other.
What neither file says is how a text is split into words; it is known by the tokenizer's class.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from model.errors import TokenizerError
from model.tokenizer.alphabet import byte_level_alphabet
from model.tokenizer.settings import AddedToken, TokenizerSettings, read_json, read_optional_json, read_text

_WORDS = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}%s",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
_QWEN, _LLAMA3 = _WORDS % "", _WORDS % "{1,3}"
_END_OF_TEXT = "<|endoftext|>"  # GPT-2's and Qwen's only special token, unless a file says otherwise
_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\s")
_LLAMA3_CLASSES = (None, "PreTrainedTokenizerFast", "PreTrainedTokenizer", "LlamaTokenizer", "LlamaTokenizerFast")
_LLAMA3_NAMED = {
    0: "begin_of_text",
    1: "end_of_text",
    4: "finetune_right_pad_id",
    6: "start_header_id",
    7: "end_header_id",
    8: "eom_id",
    9: "eot_id",
    10: "python_tag",
}
_LLAMA3_SPECIAL, _BEGIN = 256, "<|begin_of_text|>"


def is_tiktoken(head: bytes) -> bool:
    """Whether a file that begins so is a table of ranks: a token in base64, a blank and its rank in each line."""
    return _LINE.match(head) is not None


# ---- vocab.json and merges.txt -----------------------------------------------------------------------------------


def from_vocabulary(path: Path, settings: TokenizerSettings) -> dict[str, Any]:
    """``path``: the vocab.json. Raises TokenizerError for files that are broken or of an unknown class."""
    vocabulary = read_json(path)
    if not all(isinstance(token_id, int) for token_id in vocabulary.values()):
        raise TokenizerError(f"{path} must map tokens to their ids")
    model = {"type": "BPE", "vocab": vocabulary, "merges": list(_merges(path.with_name("merges.txt"), vocabulary))}
    config = read_optional_json(path.with_name("tokenizer_config.json"))
    prefix = config.get("add_prefix_space") is True
    if _is_qwen(path.parent, settings):
        document = _document(model, _split(_QWEN, prefix), {"type": "NFC"})
    else:
        byte_level = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": True}
        document = _document(model, byte_level)
    return document | {"added_tokens": _added_tokens(path.parent, vocabulary, settings)}


def _is_qwen(folder: Path, settings: TokenizerSettings) -> bool:
    name = settings.class_name
    family = str(read_optional_json(folder / "config.json").get("model_type"))
    if name in ("Qwen2Tokenizer", "Qwen2TokenizerFast") or (name is None and family.startswith(("qwen2", "qwen3"))):
        return True
    if name in ("GPT2Tokenizer", "GPT2TokenizerFast") or (name is None and family == "gpt2"):
        return False
    raise TokenizerError(
        f"{folder} has a vocab.json and a merges.txt of the class {name or 'that no file names'}, and how it splits "
        "a text is known of GPT2Tokenizer and Qwen2Tokenizer only; add the tokenizer.json: python -c "
        f'"from transformers import AutoTokenizer as T; T.from_pretrained({str(folder)!r})'
        f'.save_pretrained({str(folder)!r})"'
    )


def _merges(path: Path, vocabulary: Mapping[str, Any]) -> Iterator[list[str]]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        pair = line.rstrip("\r").split(" ")
        if len(pair) != 2 or not all(token in vocabulary for token in (*pair, "".join(pair))):
            raise TokenizerError(
                f"{path}:{number}: expected two tokens of vocab.json that make a third, not {line[:60]!r}; "
                "use the two files of the same model"
            )
        yield pair


def _added_tokens(folder: Path, vocabulary: Mapping[str, Any], settings: TokenizerSettings) -> list[dict[str, Any]]:
    named = set(settings.named_tokens.values())
    older = {
        token_id: AddedToken(text, text in named)
        for text, token_id in read_optional_json(folder / "added_tokens.json").items()
        if isinstance(token_id, int)
    }
    end = vocabulary.get(_END_OF_TEXT)
    usual = {end: AddedToken(_END_OF_TEXT, special=True)} if isinstance(end, int) else {}
    return _written({**usual, **older, **settings.added_tokens}, vocabulary, str(folder))


# ---- tiktoken ----------------------------------------------------------------------------------------------------


def from_tiktoken(path: Path, settings: TokenizerSettings) -> dict[str, Any]:
    """``path``: lines of a token in base64 and its rank, as Llama 3's original/tokenizer.model has them.

    Raises TokenizerError for a file that is broken, or is not split into words as Llama 3's is.
    """
    if settings.class_name not in _LLAMA3_CLASSES:
        raise TokenizerError(
            f"{path} is a table of ranks (tiktoken) of the class {settings.class_name}, and how it splits a text is "
            "known of Llama 3's only; add the model's tokenizer.json, as transformers' save_pretrained writes it"
        )
    ranks = _read_ranks(path)
    vocabulary = {_spell(token): rank for token, rank in ranks.items()}
    model = {
        "type": "BPE",
        "vocab": vocabulary,
        "merges": [[_spell(left), _spell(right)] for left, right in _recover_merges(ranks)],
        "ignore_merges": True,  # a word that is a token is that token
    }
    added = settings.added_tokens or _llama3_tokens(len(ranks))
    document = _document(model, _split(_LLAMA3, prefix=False))
    document |= {"added_tokens": _written(added, vocabulary, str(path))}
    begins = [token_id for token_id, token in added.items() if token.content == _BEGIN]
    return document if settings.add_bos is not None or not begins else document | _begin_with(begins[0])


def _read_ranks(path: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            text, rank = line.split()
            ranks[base64.b64decode(text, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise TokenizerError(
                f"{path}:{number}: expected a token in base64 and its rank, not {line[:60]!r}; it may be cut short: "
                "download it again"
            ) from None
    if sorted(ranks.values()) != list(range(len(ranks))) or any(bytes([byte]) not in ranks for byte in range(256)):
        raise TokenizerError(
            f"{path}: expected the ranks from 0 on, each once, and all 256 bytes among the tokens; it may be cut "
            "short: download it again"
        )
    return ranks


def _recover_merges(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """tiktoken merges any two neighbours that make a token, lowest rank first: every way to part a token in two, in
    the order of ranks, is a merge."""
    for token in sorted(ranks, key=ranks.__getitem__):
        parts = ((token[:at], token[at:]) for at in range(1, len(token)))
        known = [(left, right) for left, right in parts if left in ranks and right in ranks]
        yield from sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))


def _llama3_tokens(first: int) -> dict[int, AddedToken]:
    """Meta's code knows them, and no file does."""
    reserved = iter(range(_LLAMA3_SPECIAL))
    names = [_LLAMA3_NAMED.get(at) or f"reserved_special_token_{next(reserved)}" for at in range(_LLAMA3_SPECIAL)]
    return {first + at: AddedToken(f"<|{name}|>", special=True) for at, name in enumerate(names)}


def _begin_with(token_id: int) -> dict[str, Any]:
    begin, text = {"SpecialToken": {"id": _BEGIN, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    template = {
        "type": "TemplateProcessing",
        "single": [begin, text],
        "pair": [begin, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {_BEGIN: {"id": _BEGIN, "ids": [token_id], "tokens": [_BEGIN]}},
    }
    return {"post_processor": template}


# ---- tokenizer.json ----------------------------------------------------------------------------------------------


def _document(
    model: Mapping[str, Any], pre_tokenizer: Mapping[str, Any], normalizer: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "version": "1.0",
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": {**model, "fuse_unk": False, "byte_fallback": False},
    }


def _split(pattern: str, prefix: bool) -> dict[str, Any]:
    words = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [words, byte_level]}


def _written(tokens: Mapping[int, AddedToken], vocabulary: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The library numbers them itself, one after the other, behind the vocabulary."""
    behind = [token_id for token_id in sorted(tokens) if vocabulary.get(tokens[token_id].content) != token_id]
    if behind != list(range(len(vocabulary), len(vocabulary) + len(behind))):
        raise TokenizerError(
            f"{name}: the added tokens have the ids {behind[0]} to {behind[-1]}, which do not follow the vocabulary "
            f"of {len(vocabulary)} tokens without a gap; use the files of the same model"
        )
    return [
        {
            "id": token_id,
            "content": token.content,
            "special": token.special,
            "single_word": token.single_word,
            "lstrip": token.lstrip,
            "rstrip": token.rstrip,
            "normalized": token.normalized,
        }
        for token_id, token in sorted(tokens.items())
    ]


_ALPHABET = {byte: sign for sign, byte in byte_level_alphabet().items()}


def _spell(token: bytes) -> str:
    return "".join(_ALPHABET[byte] for byte in token)
