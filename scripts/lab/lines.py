"""Lines of a body that arrives in pieces, cut anywhere."""

from __future__ import annotations


class LineSplitter:
    """Every API here sends one event per line: server-sent events have one ``data:`` line each, and llm-serving's
    lines are bare JSON. So an event is complete when its line feed has come."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, part: bytes) -> list[bytes]:
        """Lines that are complete now, without their ends; empty ones are left out."""
        lines = (self._rest + part if self._rest else part).split(b"\n")
        self._rest = lines.pop()
        return [line for line in map(_without_return, lines) if line]

    def finish(self) -> list[bytes]:
        """The last line, where the body did not end with a line feed."""
        rest, self._rest = _without_return(self._rest), b""
        return [rest] if rest else []


def _without_return(line: bytes) -> bytes:
    return line[:-1] if line.endswith(b"\r") else line
