"""The answers of a model family: read piece by piece as they are generated, and guaranteed by grammars."""

from model.response.format import Kind, Opened, Piece, ResponseFormat
from model.response.opened import initial_state
from model.response.presets import choose_format
from model.response.reader import ResponseReader

__all__ = ["Kind", "Opened", "Piece", "ResponseFormat", "ResponseReader", "choose_format", "initial_state"]
