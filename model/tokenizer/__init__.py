"""Text to token ids and back, whole or as a stream, for SentencePiece and Hugging Face files."""

from model.tokenizer.base import InvalidTextError, Tokenizer, require_utf8
from model.tokenizer.chat import ChatTemplateError, Message
from model.tokenizer.incremental import (
    LONGEST_CHARACTER,
    IncrementalDetokenizer,
    ShowingSpecial,
    StopStrings,
    end_with_bytes,
)
from model.tokenizer.loading import load_tokenizer
from model.tokenizer.table import TokenTable, fingerprint, pack_vocabulary
from model.tokenizer.vocabulary import Vocabulary

__all__ = [
    "LONGEST_CHARACTER",
    "ChatTemplateError",
    "IncrementalDetokenizer",
    "InvalidTextError",
    "Message",
    "ShowingSpecial",
    "StopStrings",
    "TokenTable",
    "Tokenizer",
    "Vocabulary",
    "end_with_bytes",
    "fingerprint",
    "load_tokenizer",
    "pack_vocabulary",
    "require_utf8",
]
