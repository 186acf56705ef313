"""The answers of a model family: read piece by piece as they are generated, and guaranteed by grammars."""

from model.response.format import RAW, Calls, Kind, Mark, Opened, Piece, Reasoning, ResponseFormat, Syntax
from model.response.opened import initial_state
from model.response.presets import REASONING, TOOLS, choose_format
from model.response.reader import ResponseReader

__all__ = [
    "RAW",
    "REASONING",
    "TOOLS",
    "Calls",
    "Kind",
    "Mark",
    "Opened",
    "Piece",
    "Reasoning",
    "ResponseFormat",
    "ResponseReader",
    "Syntax",
    "choose_format",
    "initial_state",
]
