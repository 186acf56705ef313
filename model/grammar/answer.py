"""What an answer consists of: stub."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from model.response.format import ResponseFormat


class ReasoningShape(Enum):
    NONE = "none"
    MAY = "may"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class ToolShape:
    name: str
    parameters: Any = None
    grammar: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class AnswerShape:
    format: ResponseFormat
    reasoning: ReasoningShape = ReasoningShape.NONE
    tools: tuple[ToolShape, ...] = ()
    least: int = 0
    most: int | None = None
    text: bool = False
    body: tuple[str, Any] | None = None
