"""Stop strings in a stream of text, wherever the tokens' borders lie."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Passes text on and ends it at the first stop string.

    Text that may be the beginning of a stop string is held back until that is settled. The stop string that
    is complete first ends the text; of several that end at the same place the longest counts. So the
    outcome does not depend on how the text is cut into pieces. After a restart, push the last `memory` characters
    of the text so far (or more) and drop what comes back: the state is then the same.
    """

    def __init__(self, stops: Sequence[str], *, include: bool = False) -> None:
        """``include`` keeps the matched stop string in the text. Raises ValueError for an empty one."""
        if not all(stops):
            raise ValueError("an empty stop string would end every text before its first character")
        self._stops = tuple(dict.fromkeys(stops))
        self.memory = max(map(len, self._stops), default=1) - 1  # characters held back at most
        self._first_signs = frozenset(stop[0] for stop in self._stops)
        self._include = include
        self._held = ""
        self.matched: str | None = None  # the stop string that ended the text

    def push(self, text: str) -> str:
        """The text that may be sent now; always empty after a match."""
        if self.matched is not None:
            return ""
        if not self._stops:
            return text
        self._held += text
        return self._cut_at_match() if self._find_match() else self._release()

    def finish(self) -> str:
        """The text that was held back when the stream ends without a match."""
        text, self._held = self._held, ""
        return text

    def _find_match(self) -> bool:
        ends = [(start + len(stop), start, stop) for stop in self._stops if (start := self._held.find(stop)) >= 0]
        if ends:
            self.matched = min(ends)[2]
        return bool(ends)

    def _cut_at_match(self) -> str:
        assert self.matched is not None
        start = self._held.find(self.matched)
        text = self._held[: start + len(self.matched) if self._include else start]
        self._held = ""
        return text

    def _release(self) -> str:
        kept = self._longest_possible_beginning()
        text, self._held = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
        return text

    def _longest_possible_beginning(self) -> int:
        """Length of the longest end of the held text with which some stop string begins."""
        longest = min(len(self._held), self.memory)
        for length in range(longest, 0, -1):
            if self._held[-length] in self._first_signs:  # spares most of the comparisons
                tail = self._held[-length:]
                if any(stop.startswith(tail) for stop in self._stops):
                    return length
        return 0
