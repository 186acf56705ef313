"""Whether a stream goes on while hostile requests are being worked off, told without a limit of time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scripts.bench.isolation.attacks import Sent
from scripts.verify.survival.streams import Stream


@dataclass(frozen=True, slots=True)
class Progress:
    """Slices of time in which a request was under way, and those among them that brought a token."""

    busy: int
    brought: int

    @property
    def goes_on(self) -> bool:
        """In at least half of them. A stream that stands while one request is worked off and then brings everything
        at once has tokens in hardly any, however many they are and however slow the machine is."""
        return self.busy > 0 and 2 * self.brought >= self.busy


def progress(streams: Iterable[Stream], sent: Sequence[Sent], slice_s: float) -> Progress:
    """Slices should be as long as a few steps."""
    busy: set[int] = set()
    for each in sent:
        busy.update(range(int(each.begin_s / slice_s), int(each.end_s / slice_s) + 1))
    brought = {int(time_s / slice_s) for stream in streams for time_s in stream.times_s}
    return Progress(len(busy), len(busy & brought))
