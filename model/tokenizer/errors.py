"""Errors that a client's text can cause; an unusable tokenizer raises a plain TokenizerError."""

from model.errors import TokenizerError


class ChatTemplateError(TokenizerError):
    """The messages do not fit the chat template."""


class InvalidTextError(TokenizerError):
    """The text is not valid Unicode."""
