"""Text to token ids and back, whole or as a stream, for SentencePiece and Hugging Face files."""

from model.tokenizer.base import Tokenizer
from model.tokenizer.chat import Message
from model.tokenizer.errors import ChatTemplateError, InvalidTextError
from model.tokenizer.incremental import LONGEST_CHARACTER, IncrementalDetokenizer, end_with_bytes
from model.tokenizer.loading import load_tokenizer
from model.tokenizer.stop import StopStrings

__all__ = [
    "LONGEST_CHARACTER",
    "ChatTemplateError",
    "IncrementalDetokenizer",
    "InvalidTextError",
    "Message",
    "StopStrings",
    "Tokenizer",
    "end_with_bytes",
    "load_tokenizer",
]
