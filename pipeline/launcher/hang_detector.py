"""Supervision by progress: looks at what every process should be moving, and says which of them hang.

Nobody is asked anything. Of a stage at work the indices of its rings are read, of one that loads its CPU time, of one
that was told something whether it has done it, of the front the counter that its event loop raises.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

from pipeline.launcher.child import Child, Phase
from pipeline.launcher.processes import ProcessStat, process_stat
from pipeline.launcher.stage_progress import PARTS, Gauges, Look, Patience
from pipeline.stats import IN_HAND, FrontCounter, PreprocessCounter, StatsPage, StatsReader
from pipeline.wire.rings import Wiring

BUSY_LOOK_S, IDLE_LOOK_S = 0.2, 1.0
SLOW_STEPS = 10  # nothing need move for as long as this many of the slowest steps known
BUSY_PATIENCE = 6  # times as long: a front that computes, which an endless loop does, too
USEFUL_BEATS = 10  # a second: a front whose event loop ran so long beside all others was well
LOADING_PATIENCE = 12  # times as long: whoever loads may wait for a disk or a device without using the CPU
PROMPT_PATIENCE = 12  # likewise: a text of the greatest length takes seconds, when the CPUs are free
TELLING_PATIENCE = 2  # whoever is told something ends its step first
LONG_LIFE_S = 30.0  # what dies after that was not broken when it began
LONGEST_LOADING_S = 1800.0  # a 7B checkpoint from a slow disk takes minutes

log = logging.getLogger("ringserve.launcher")


@dataclass(frozen=True, slots=True)
class Hang:
    """`child` is None where stages wait for each other, so that none is to blame. `stopped`: the process does not run
    at all (SIGSTOP), which is nothing that it did itself."""

    child: Child | None
    still_s: float
    what: str
    stopped: bool = False


class Oversight:
    """`look` whenever it is `due`. `patience_s` is how long nothing may move where something should."""

    def __init__(self, page: StatsPage, patience_s: float) -> None:
        self.patience_s = patience_s
        self.due = self._looked = time.monotonic()
        self._page, self._stats = page, StatsReader(page)
        self._patience = Patience()
        self._gauges: Gauges | None = None
        self._first: Look | None = None  # as the generation began
        self._last: Look | None = None
        self._complete_at: float | None = None
        self._complete_beat = 0
        self._beat: Hashable = None  # of which front, and which; as seen last
        self._warned_of: Hashable = None  # the beat at which a front was called busy

    # ---- generations ----------------------------------------------------------------------------------------

    def begin(self, wiring: Wiring) -> None:
        """A generation is handed over."""
        self._gauges = Gauges(wiring)
        self._first = self._last = self._gauges.look()

    def complete(self) -> None:
        """Every stage is at work in it."""
        self._complete_at = time.monotonic()
        self._complete_beat = self._front_beat()

    def end(self) -> set[str]:
        """It is over: the stages that did something useful in it, or lived long."""
        useful = set(self._useful())
        self._gauges = self._first = self._last = self._complete_at = None
        self._still("everybody", None, 0)
        return useful

    def _useful(self) -> Iterator[str]:
        if self._gauges is None or self._first is None or self._complete_at is None:
            return
        now, old = self._gauges.look(), time.monotonic() - self._complete_at > LONG_LIFE_S
        yield from (stage for stage in PARTS if old or now.positions(stage) != self._first.positions(stage))
        if self._front_beat() - self._complete_beat >= USEFUL_BEATS:  # it need not have had a request
            yield "front"

    def _front_beat(self) -> int:
        return int(self._page.views.front[FrontCounter.BEAT])

    # ---- looking --------------------------------------------------------------------------------------------

    def look(self, children: Iterable[Child]) -> list[Hang]:
        """Who hangs, as seen now."""
        now, planned = time.monotonic(), self.due - self._looked
        elapsed = min(now - self._looked, 2 * planned)  # if this process was stopped, so perhaps were the others
        self._looked = now
        look = self._gauges.look() if self._gauges else None
        self.due = now + (BUSY_LOOK_S if look and (look.has_work or look != self._last) else IDLE_LOOK_S)
        self._last = look
        hangs = [hang for child in children if (hang := self._look_at(child, look, elapsed))]
        if not hangs and (still := self._still("everybody", _deadlock(look), elapsed, TELLING_PATIENCE)):
            hangs.append(Hang(None, still, "the stages wait for each other"))
        return hangs

    def _look_at(self, child: Child, look: Look | None, elapsed: float) -> Hang | None:
        name, phase = child.name, child.phase
        if phase is Phase.LOADING:
            return self._look_at_loading(child, elapsed)
        stat = process_stat(child.pid)
        working = elapsed  # time in which it could have worked
        if name == "front":
            beat = self._front_beat()
            if hang := self._look_at_beat(child, beat, stat, elapsed):
                return hang
            if self._beat == (child.pid, beat):
                working = 0.0  # as long as its loop stands still, that is what is judged
            self._beat = child.pid, beat
        stopped = self._still((child.pid, "stopped"), True if stat and stat.stopped else None, elapsed)
        if phase in (Phase.ATTACHING, Phase.LEAVING):
            if stopped:  # for longer than that: no more time for it
                return Hang(child, stopped, f"it stands still instead of {phase.value}", stopped=True)
            evidence: Hashable = (phase, child.generation)
            if still := self._still((child.pid, "told"), evidence, working, TELLING_PATIENCE):
                return _hang(child, still, f"it should have ended {phase.value}")
        return self._look_at_work(child, look, working) if phase is Phase.SERVING and look is not None else None

    def _look_at_work(self, child: Child, look: Look, elapsed: float) -> Hang | None:
        evidence = (child.generation, look.positions(child.name)) if look.is_due(child.name) else None
        if still := self._still((child.pid, "work"), evidence, elapsed):
            return _hang(child, still, "it has work and does not get on")
        return self._look_at_prompts(child, elapsed) if child.name == "preprocess" else None

    def _look_at_beat(self, child: Child, beat: int, stat: ProcessStat | None, elapsed: float) -> Hang | None:
        """A front whose event loop stands still hangs soon if it does not compute, and later if it does."""
        still = self._patience.still_s((child.pid, "beat"), beat, elapsed)
        idle = self._patience.still_s((child.pid, "idle"), (beat, stat.cpu_ticks if stat else 0), elapsed)
        if self._is_too_long(idle):
            return _hang(child, still, "its event loop stands still")
        if self._is_too_long(still, BUSY_PATIENCE):
            return _hang(child, still, "its event loop stands still, though it computes")
        if self._warned_of != (child.pid, beat) and self._is_too_long(still, BUSY_PATIENCE / 2):
            self._warned_of = child.pid, beat
            most = BUSY_PATIENCE * max(self.patience_s, SLOW_STEPS * self._stats.slowest_step_s())
            text = "%s is busy: its event loop has stood still for %.1f s while it computes; after %.1f s it is ended"
            log.warning(text, child.title, still, most)
        return None

    def _look_at_prompts(self, child: Child, elapsed: float) -> Hang | None:
        """Its threads work on the same text for too long; at low priority, and no index of a ring tells of it."""
        words = self._page.views.preprocess
        for lane in (PreprocessCounter.TOKENIZING, PreprocessCounter.TOKENIZING_LONG):
            request = int(words[lane])
            if still := self._still((child.pid, lane), request or None, elapsed, PROMPT_PATIENCE):
                return _hang(child, still, f"it does not get done with the prompt of request {request:016x}")
        return None

    def in_hand(self) -> tuple[int, ...]:
        """Requests that preprocess works on, or worked on when it died."""
        words = self._page.views.preprocess
        return tuple(dict.fromkeys(int(words[word]) for word in IN_HAND if words[word]))

    def _look_at_loading(self, child: Child, elapsed: float) -> Hang | None:
        stat = process_stat(child.pid)
        evidence = (child.heard, stat.cpu_ticks if stat else 0)
        patience = 1 if stat and stat.stopped else LOADING_PATIENCE
        if still := self._still((child.pid, "load"), evidence, elapsed, patience):
            return _hang(child, still, "it does not get on loading")
        age = time.monotonic() - child.began
        return _hang(child, age, "it is still loading") if age > LONGEST_LOADING_S else None

    def _still(self, who: Hashable, evidence: Hashable, elapsed: float, patience: int = 1) -> float:
        """Seconds without progress if they are too many, else 0."""
        still = self._patience.still_s(who, evidence, elapsed)
        return still if self._is_too_long(still, patience) else 0

    def _is_too_long(self, still: float, patience: float = 1) -> bool:
        if still < self.patience_s * patience:
            return False
        return still >= SLOW_STEPS * patience * self._stats.slowest_step_s()

    def forget(self, child: Child) -> None:
        """It is gone."""
        self._patience.forget(child.pid)


def _hang(child: Child, still: float, what: str) -> Hang:
    stat = process_stat(child.pid)
    return Hang(child, still, what, stopped=bool(stat and stat.stopped))


def _deadlock(look: Look | None) -> Hashable:
    """Work is there, and nobody is due. What was changing before is no evidence of it."""
    if look is None or not look.has_work or any(map(look.is_due, PARTS)):
        return None
    return tuple(map(look.positions, PARTS))
