"""From the tokens of a text to the events of an answer, where it has more than text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from model.response import Kind, Piece
from pipeline.front.delivery.job import CallArguments, CallBegin, CallEnd, End, Event, Reasoning, Text
from pipeline.wire.delta import Delta, FinishReason


class PieceReader(Protocol):
    """What finds reasoning and calls in a text."""

    def push(self, text: str, token_id: int) -> Sequence[Piece]: ...

    def finish(self, *, cut: bool = False) -> Sequence[Piece]: ...


class AnswerReader:
    """Of one choice. `every_token`: a token that brings nothing else brings an empty text, for its
    log-probability."""

    def __init__(self, choice: int, pieces: PieceReader, *, every_token: bool) -> None:
        self._choice, self._pieces, self._every_token = choice, pieces, every_token
        self.calls = 0

    def __call__(self, deltas: Sequence[Delta]) -> list[Event]:
        """See `Reader`."""
        events: list[Event] = []
        for delta in deltas:
            pieces = list(self._pieces.push(delta.text, delta.token_id))
            if delta.reason is not FinishReason.NONE:
                pieces += self._pieces.finish(cut=delta.reason is FinishReason.LENGTH)
            own = [self._event(delta, part, *piece) for part, piece in enumerate(pieces)]
            if not own and self._every_token:
                own = [Text(self._choice, delta, 0, "")]
            events += own
            if delta.reason is not FinishReason.NONE:
                events.append(End(self._choice, delta, len(own), delta.reason))
        return events

    def _event(self, delta: Delta, part: int, kind: Kind, text: str) -> Event:
        choice = self._choice
        match kind:
            case Kind.TEXT:
                return Text(choice, delta, part, text)
            case Kind.REASONING:
                return Reasoning(choice, delta, part, text)
            case Kind.CALL_BEGIN:
                self.calls += 1
                return CallBegin(choice, delta, part, self.calls - 1, text)
            case Kind.CALL_ARGUMENTS:
                return CallArguments(choice, delta, part, self.calls - 1, text)
            case Kind.CALL_END:
                return CallEnd(choice, delta, part, self.calls - 1)
