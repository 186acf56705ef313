"""Text to token ids and back, whole or as a stream, for SentencePiece and Hugging Face files."""

from model.tokenizer.base import Tokenizer
from model.tokenizer.chat import Message
from model.tokenizer.errors import ChatTemplateError, InvalidTextError
from model.tokenizer.incremental import IncrementalDetokenizer
from model.tokenizer.loading import load_tokenizer
from model.tokenizer.stop import StopStrings

__all__ = [
    "ChatTemplateError",
    "IncrementalDetokenizer",
    "InvalidTextError",
    "Message",
    "StopStrings",
    "Tokenizer",
    "load_tokenizer",
]
