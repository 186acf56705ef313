"""What has moved in the rings of a replica since they were handed out."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator

from pipeline.launcher.stage_progress import RingGauges, Snapshot
from pipeline.stats import FrontCounter, StatsPage

LONG_LIFE_S = 30.0  # a stage that dies after that was not broken from the start
USEFUL_BEATS = 10  # one second: a front whose event loop ran for so long beside all others has worked


class GenerationProgress:
    """Of one generation. `last` is what was seen last, `busy` whether there was work or something had moved."""

    def __init__(self, page: StatsPage, replica: int, gauges: RingGauges) -> None:
        self._page, self._gauges = page, gauges
        self._users = page.topology.users(replica)
        self._first = self.last = gauges.snapshot()
        self.busy = False
        self._complete_at: float | None = None
        self._complete_beats: dict[str, int] = {}

    def complete(self) -> None:
        """Every stage serves in it."""
        self._complete_at, self._complete_beats = time.monotonic(), self._beats()

    def look(self) -> Snapshot:
        now = self._gauges.snapshot()
        self.busy, self.last = now.has_work or now != self.last, now
        return now

    def useful(self) -> Iterator[str]:
        """The units that did something useful in it, or lived long."""
        if self._complete_at is None:
            return
        now, old = self._gauges.snapshot(), time.monotonic() - self._complete_at > LONG_LIFE_S
        units = {stage.unit for stage in self._users}
        yield from (unit for unit in units if old or now.positions(unit) != self._first.positions(unit))
        for front, beat in self._beats().items():  # it need not have had a request
            if beat - self._complete_beats[front] >= USEFUL_BEATS:
                yield front

    def _beats(self) -> dict[str, int]:
        return {stage.unit: front_beat(self._page, stage.key) for stage in self._users if stage.is_front}

    def deadlock(self) -> Hashable:
        """There is work, and no stage is due. What was changing before is no evidence of it."""
        if not self.last.has_work or any(self.last.is_due(stage.key) for stage in self._users):
            return None
        return tuple(self.last.positions(stage.unit) for stage in self._users)


def front_beat(page: StatsPage, front: str) -> int:
    """How often the event loop of the front with this key has come round."""
    return int(page.counters(front)[FrontCounter.BEAT])
