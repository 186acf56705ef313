"""The text that a custom tool takes, out of its call's arguments, `{"input": "…"}`, as they come."""

from __future__ import annotations

import json
import re
from typing import Final

_BEGIN: Final = re.compile(r'\{\s*"input"\s*:\s*"')
_LONGEST_BEGIN: Final = 256  # characters; beyond, the arguments are something else
_UNFINISHED: Final = re.compile(
    r"(?:\\u[dD][89abAB][0-9a-fA-F]{2})?(?:\\(?:u[0-9a-fA-F]{0,3})?)?\Z"
)  # half an escape at the end, and the first half of a character that takes two
_ESCAPE: Final = re.compile(r'\\(["\\/bfnrt]|u[0-9a-fA-F]{4})?')
_END: Final = re.compile(r'(?:[^"\\]|\\.)*"', re.DOTALL)


class TextInput:
    """Arguments of another form come out as they are."""

    def __init__(self) -> None:
        self._held = ""
        self._inside = self._over = self._other = False

    def push(self, arguments: str) -> str:
        """The text that these complete."""
        if self._other:
            return arguments
        if self._over:
            return ""
        self._held += arguments
        if not self._inside and not self._begun():
            return self.finish() if self._other else ""
        return self._decoded()

    def finish(self) -> str:
        """What is left when the call ends."""
        held, self._held = self._held, ""
        return "" if self._inside else held

    def _begun(self) -> bool:
        found = _BEGIN.match(self._held)
        if found is not None:
            self._inside, self._held = True, self._held[found.end() :]
        elif len(self._held) > _LONGEST_BEGIN:
            self._other = True
        return self._inside

    def _decoded(self) -> str:
        end = _END.match(self._held)
        if end is not None:
            self._over, ready = True, end[0][:-1]
        else:
            ready = self._held[: _unfinished_from(self._held)]
        self._held = self._held[len(ready) :]
        written = _ESCAPE.sub(
            lambda found: found[0] if found[1] else r"\\", ready
        )  # what is no escape is a backslash
        text: str = json.loads(f'"{written}"', strict=False)
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # half a character can't be sent


def _unfinished_from(text: str) -> int:
    """Where the part begins that can't be decoded yet."""
    start = len(text)
    for found in _UNFINISHED.finditer(text, max(0, len(text) - 12)):
        before = len(text[: found.start()]) - len(text[: found.start()].rstrip("\\"))
        if before % 2 == 0:
            start = min(start, found.start())
    return start
