"""Requests that may have made a process of the step path fail.

When inference or sampling fails by itself, any request in the batch may be the cause: all of them are suspects. Each
then runs alone, one after the other, until it is past the step at which the process failed. If the process fails
again while a suspect is alone, that one is convicted: it is refused from then on. The others continue normally.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable

from pipeline.preprocess.sequence import Sequence

log = logging.getLogger("ringserve.preprocess")

_BEYOND = 2  # tokens that a suspect must yield beyond those that were being computed when the process failed
_REMEMBERED = 4096  # suspects and convicts; bounds the memory for those that never come back


class Quarantine:
    """Suspects and convicted requests. It outlives the schedulers, which live for one generation."""

    def __init__(self) -> None:
        self._until: dict[int, int] = {}  # suspect → tokens, prompt included, with which it is cleared
        self._convicted: deque[int] = deque(maxlen=_REMEMBERED)

    def accuse(self, stage: str, aboard: Iterable[Sequence], alone: Sequence | None) -> None:
        """This stage failed. `aboard` are the sequences that may be the cause; `alone` is the suspect, if it was the
        only one of them."""
        if alone is not None:
            log.error("request %016x made %s fail twice: it is refused", alone.request, stage)
            self._convicted.append(alone.request)
            self.acquit(alone.request)
            return
        suspects = {sequence.request: sequence.length + _BEYOND for sequence in aboard}
        self._until |= suspects
        for request in list(self._until)[:-_REMEMBERED]:
            self.acquit(request)
        if suspects:
            names = ", ".join(f"{request:016x}" for request in suspects)
            log.warning("%s failed; each of these requests may be the cause and runs alone first: %s", stage, names)

    def suspect(self, sequence: Sequence) -> None:
        """It may have made another replica fail, or this one, in a process of preprocess before this one."""
        self._until.setdefault(sequence.request, sequence.length + _BEYOND)

    def acquit(self, request: int) -> None:
        self._until.pop(request, None)

    def is_convicted(self, request: int) -> bool:
        return request in self._convicted

    def is_suspect(self, request: int) -> bool:
        return request in self._until

    def clears(self, sequence: Sequence) -> bool:
        """It is past the step at which the process failed."""
        return sequence.known >= self._until.get(sequence.request, 0)
