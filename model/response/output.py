"""What comes out of an answer: prose without the blanks around it, and calls that are text until they are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from model.response.format import Kind, Piece
from model.response.tape import Tape


class NotACallError(Exception):
    """What was read as a call, or as the rest of one, is none."""


class Pieces:
    """Those of one push; what belongs together is joined."""

    def __init__(self) -> None:
        self._pieces: list[tuple[Kind, list[str]]] = []

    def add(self, kind: Kind, text: str = "") -> None:
        whole = kind in (Kind.CALL_BEGIN, Kind.CALL_END)
        if not text and not whole:
            return
        if self._pieces and self._pieces[-1][0] is kind and not whole:
            self._pieces[-1][1].append(text)
        else:
            self._pieces.append((kind, [text]))

    def collect(self) -> list[Piece]:
        pieces, self._pieces = self._pieces, []
        return [(kind, "".join(parts)) for kind, parts in pieces]


class Prose:
    """Text or reasoning. Blanks are held back until something follows: between parts of an answer they mean nothing.

    `shown`: it is a part of the answer; else it is dropped.
    """

    def __init__(self, add: Callable[[str], None], *, shown: bool = True, strips: bool = False) -> None:
        self.shown = shown
        self._add, self._strips, self._leading = add, strips, strips
        self._held: list[str] = []

    def push(self, text: str) -> None:
        if self.shown:
            self.push_raw(text)

    def push_raw(self, text: str) -> None:
        if self._leading:
            text = text.lstrip()
        solid = text.rstrip()
        if solid:
            self._leading = False
            self._add("".join([*self._held, solid]))
            self._held.clear()
        if len(solid) < len(text):
            self._held.append(text[len(solid) :])

    def drop_blanks(self) -> None:
        """Something else than prose follows, or begins."""
        self._held.clear()
        self._leading = True

    def end(self) -> None:
        if self._strips:
            self.drop_blanks()
        self._add("".join(self._held))
        self._held.clear()


class State(Enum):
    UNDECIDED = "undecided"
    GIVEN = "given"
    UNKNOWN = "unknown"  # of no tool: text


class CallOutput:
    """The call that is being read. Until its name is known to be a tool's it is kept as the text that it may be."""

    def __init__(self, tape: Tape, tools: Mapping[str, Any], pieces: Pieces, text: Prose) -> None:
        self.tape, self.tools = tape, tools
        self.state = State.UNDECIDED
        self.name: str | None = None  # of a tool
        self.has_arguments = self.cut = False
        self._pieces, self._text = pieces, text
        self._raw: list[str] = []
        self._held: list[str] = []

    def start(self, taken: str = "") -> None:
        """What is taken from here on belongs to a call; `taken` does already."""
        self.state, self.name, self.has_arguments = State.UNDECIDED, None, False
        self._raw, self._held = [taken], []
        self.tape.tap = self._raw.append

    def begin(self, name: str) -> None:
        if name not in self.tools:
            self.state = State.UNKNOWN
            self._text.push_raw("".join(self._raw))
            self.tape.tap = self._text.push_raw
            return
        self.state, self.name = State.GIVEN, name
        self.tape.tap = None
        self._text.drop_blanks()
        self._pieces.add(Kind.CALL_BEGIN, name)
        self._pieces.add(Kind.CALL_ARGUMENTS, "".join(self._held))

    def add_arguments(self, text: str) -> None:
        """A part of them, as it comes; held back until there is a name."""
        if self.state is State.GIVEN:
            self._pieces.add(Kind.CALL_ARGUMENTS, text)
        elif self.state is State.UNDECIDED:
            self._held.append(text)

    def end(self) -> None:
        """It is complete."""
        if self.state is State.UNDECIDED:
            raise NotACallError
        if self.state is State.GIVEN:
            if not self.has_arguments:
                self._pieces.add(Kind.CALL_ARGUMENTS, "{}")
            self._pieces.add(Kind.CALL_END)

    def drop(self) -> None:
        """What was taken since `start` means nothing."""
        self._raw = []
        self.tape.tap = None

    def leave(self) -> None:
        """The call is over, or none: what is undecided is text."""
        self.tape.tap = None
        unfinished = self.cut and bool(self._raw[:1] and self._raw[0])  # behind a mark
        if self.state is State.UNDECIDED and any(self._raw) and not unfinished:
            self._text.shown = True
            self._text.push_raw("".join(self._raw))
        self._raw = []
