"""From a path to a tokenizer."""

from __future__ import annotations

from pathlib import Path

from model.errors import TokenizerError
from model.tokenizer.base import Tokenizer
from model.tokenizer.settings import TokenizerSettings, read_settings

FILE_NAMES = ("tokenizer.json", "tokenizer.model")  # the first that a folder has is taken
GIT_LFS_POINTER = b"version https://git-lfs"


def load_tokenizer(
    path: str | Path, *, model_vocab_size: int | None = None, chat_template: Path | None = None
) -> Tokenizer:
    """Load a tokenizer.json (Hugging Face) or tokenizer.model (SentencePiece), or the folder that has one.

    The kind follows from the content, not from the name. Files beside it are used where they are: for the special
    tokens, BOS and EOS, and the chat template tokenizer_config.json (special_tokens_map.json,
    chat_template.jinja), for the ids that end an answer generation_config.json and config.json. A file given as
    ``chat_template`` stands in place of the template beside the tokenizer.

    Raises TokenizerError for a missing or malformed file, and for a tokenizer with more ids than
    ``model_vocab_size``; a tokenizer with fewer is fine, since models pad their vocabulary.
    """
    file = _find_file(Path(path))
    tokenizer = _load_file(file, _read_head(file), read_settings(file.parent, chat_template))
    tokenizer.name_template_tokens()
    if model_vocab_size is not None:
        tokenizer.require_fits(model_vocab_size)
    return tokenizer


def _find_file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.exists():
        raise TokenizerError(
            f"there is no tokenizer at {path}; give a tokenizer.json, a tokenizer.model or their folder"
        )
    for name in FILE_NAMES:
        if (path / name).is_file():
            return path / name
    raise TokenizerError(f"the folder {path} has neither a tokenizer.json nor a tokenizer.model; add one of them")


def _read_head(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            head = stream.read(64)
    except OSError as error:
        raise TokenizerError(f"cannot read {file}: {error.strerror}") from error
    if not head:
        raise TokenizerError(f"{file} is empty; download it again")
    if head.startswith(GIT_LFS_POINTER):
        raise TokenizerError(f"{file} is a Git LFS pointer, not the file itself; run 'git lfs pull' in its folder")
    return head


def _load_file(file: Path, head: bytes, settings: TokenizerSettings) -> Tokenizer:
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        from model.tokenizer.huggingface import HuggingFaceTokenizer

        return HuggingFaceTokenizer(file, settings)
    from model.tokenizer.sentence_piece import SentencePieceTokenizer

    return SentencePieceTokenizer(file, settings)
