"""From a path to a tokenizer."""

from __future__ import annotations

from pathlib import Path

from model.errors import TokenizerError
from model.folder import find_tokenizer, require_content
from model.tokenizer.base import Tokenizer
from model.tokenizer.byte_level import from_tiktoken, from_vocabulary, is_tiktoken
from model.tokenizer.settings import TokenizerSettings, read_settings


def load_tokenizer(
    path: str | Path, *, model_vocab_size: int | None = None, chat_template: Path | None = None
) -> Tokenizer:
    """Load a tokenizer.json (Hugging Face), a tokenizer.model (SentencePiece, or Llama 3's ranks), a vocab.json with
    merges.txt beside it, or the folder that has one.

    The kind follows from the content, not from the name. Files beside it are used where they are: for the special
    tokens, BOS and EOS, and the chat template tokenizer_config.json (special_tokens_map.json, chat_template.jinja,
    chat_template.json, additional_chat_templates/), for the ids that end an answer generation_config.json and
    config.json. A file given as ``chat_template`` stands in place of the template beside the tokenizer.

    Raises TokenizerError for a missing or malformed file, and for a tokenizer with more ids than
    ``model_vocab_size``; a tokenizer with fewer is fine, since models pad their vocabulary.
    """
    file = find_tokenizer(Path(path))
    folder = file.parent.parent if file.parent == Path(path) / "original" else file.parent
    tokenizer = _load_file(file, require_content(file, TokenizerError), read_settings(folder, chat_template))
    tokenizer.name_template_tokens()
    if model_vocab_size is not None:
        tokenizer.require_fits(model_vocab_size)
    return tokenizer


def _load_file(file: Path, head: bytes, settings: TokenizerSettings) -> Tokenizer:
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        from model.tokenizer.huggingface import HuggingFaceTokenizer

        content = from_vocabulary(file, settings) if file.name == "vocab.json" else None
        return HuggingFaceTokenizer(file, settings, content)
    if is_tiktoken(head):
        from model.tokenizer.huggingface import HuggingFaceTokenizer

        return HuggingFaceTokenizer(file, settings, from_tiktoken(file, settings))
    from model.tokenizer.sentence_piece import SentencePieceTokenizer

    return SentencePieceTokenizer(file, settings)
