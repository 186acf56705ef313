"""Which file of a folder is the tokenizer."""

from __future__ import annotations

from pathlib import Path

from model.errors import TokenizerError

_FILES = ("tokenizer.json", "tokenizer.model")
_VOCABULARY, _MERGES = "vocab.json", "merges.txt"
_META = Path("original/tokenizer.model")  # Llama 3's, beside the converted weights
_OTHERS = {
    "tekken.json": "Mistral's own format",
    "*.tiktoken": "read by code that comes with the model",
    "tokenizer.model.v*": "Mistral's own format",
    "spiece.model": "of an encoder-decoder",
    "vocab.txt": "of an encoder",
}


def find_tokenizer(path: Path) -> Path:
    """The tokenizer in a folder, or the file itself: a tokenizer.json, a tokenizer.model, or a vocab.json with its
    merges.txt beside it. Raises TokenizerError."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise TokenizerError(
            f"there is no tokenizer at {path}; give a tokenizer.json, a tokenizer.model or their folder"
        )
    for name in _FILES:
        if (path / name).is_file():
            return path / name
    if (path / _VOCABULARY).is_file():
        if (path / _MERGES).is_file():
            return path / _VOCABULARY
        raise TokenizerError(f"{path} has a {_VOCABULARY}, but no {_MERGES} beside it; download it, too")
    if (path / _META).is_file():
        return path / _META
    raise TokenizerError(_missing(path))


def _missing(folder: Path) -> str:
    found = [
        f"; it has {file.name}, {what}, which is not supported"
        for pattern, what in _OTHERS.items()
        for file in sorted(folder.glob(pattern))
    ]
    return (
        f"the folder {folder} has neither a tokenizer.json nor a tokenizer.model, nor a vocab.json with a merges.txt"
        f"{''.join(found[:1])}; add one of them, as transformers' tokenizer.save_pretrained writes it"
    )
