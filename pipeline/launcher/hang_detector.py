"""Supervision by progress: samples what every process should be advancing, and finds those that hang.

Nothing is sent to a stage. Of one that serves, the indices of its rings are read; of one that loads, its CPU time; of
one that got an order, whether it was carried out; of the front, the counter that its event loop increments.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

from pipeline.launcher.child import Child, Phase
from pipeline.launcher.process_stat import ProcessStat, process_stat
from pipeline.launcher.stage_progress import PARTS, RingGauges, Snapshot, StallTimer
from pipeline.stats import IN_HAND, FrontCounter, PreprocessCounter, StatsPage, StatsReader
from pipeline.wire.rings import Wiring

BUSY_CHECK_S, IDLE_CHECK_S = 0.2, 1.0
SLOW_STEPS = 10  # no progress is expected within this many times the slowest step known
BUSY_PATIENCE = 6  # times the timeout: a front that uses the CPU, which an endless loop does, too
USEFUL_BEATS = 10  # one second: a front whose event loop ran for so long beside all others has worked
LOADING_PATIENCE = 12  # times the timeout: a process that loads may wait for a disk or a device without using the CPU
PROMPT_PATIENCE = 12  # times the timeout: the longest text takes seconds to tokenize, even when CPUs are free
HANDOVER_PATIENCE = 2  # times the timeout: a stage that is to attach or detach ends its step first
LONG_LIFE_S = 30.0  # a stage that dies after that was not broken from the start
LONGEST_LOADING_S = 1800.0  # a 7B checkpoint from a slow disk takes minutes

log = logging.getLogger("ringserve.launcher")


@dataclass(frozen=True, slots=True)
class Hang:
    """`child` is None for a deadlock, which is no single stage's fault. `stopped`: the process does not run at all
    (SIGSTOP), which something else caused."""

    child: Child | None
    still_s: float
    what: str
    stopped: bool = False


class HangDetector:
    """Call `check` whenever it is `due`. `timeout_s` is how long a process with work may make no progress."""

    def __init__(self, page: StatsPage, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.due = self._checked = time.monotonic()
        self._page, self._stats = page, StatsReader(page)
        self._timer = StallTimer()
        self._gauges: RingGauges | None = None
        self._first: Snapshot | None = None  # when the generation began
        self._last: Snapshot | None = None
        self._complete_at: float | None = None
        self._complete_beat = 0
        self._beat: Hashable = None  # the front's pid and beat at the last check
        self._warned_of: Hashable = None  # pid and beat at which a front was reported as busy

    # ---- generations ----------------------------------------------------------------------------------------

    def begin(self, wiring: Wiring) -> None:
        """A generation is handed to the stages."""
        self._gauges = RingGauges(wiring)
        self._first = self._last = self._gauges.snapshot()

    def complete(self) -> None:
        """Every stage serves in it."""
        self._complete_at = time.monotonic()
        self._complete_beat = self._front_beat()

    def end(self) -> set[str]:
        """It is over. Returns the stages that did something useful in it, or lived long."""
        useful = set(self._useful())
        self._gauges = self._first = self._last = self._complete_at = None
        self._stalled("all stages", None, 0)
        return useful

    def _useful(self) -> Iterator[str]:
        if self._gauges is None or self._first is None or self._complete_at is None:
            return
        now, old = self._gauges.snapshot(), time.monotonic() - self._complete_at > LONG_LIFE_S
        yield from (stage for stage in PARTS if old or now.positions(stage) != self._first.positions(stage))
        if self._front_beat() - self._complete_beat >= USEFUL_BEATS:  # it need not have had a request
            yield "front"

    def _front_beat(self) -> int:
        return int(self._page.views.front[FrontCounter.BEAT])

    # ---- checks ---------------------------------------------------------------------------------------------

    def check(self, children: Iterable[Child]) -> list[Hang]:
        """The processes that hang now."""
        now, planned = time.monotonic(), self.due - self._checked
        elapsed = min(now - self._checked, 2 * planned)  # if this process was stopped, so perhaps were the others
        self._checked = now
        rings = self._gauges.snapshot() if self._gauges else None
        self.due = now + (BUSY_CHECK_S if rings and (rings.has_work or rings != self._last) else IDLE_CHECK_S)
        self._last = rings
        hangs = [hang for child in children if (hang := self._check_stage(child, rings, elapsed))]
        if not hangs and (stalled := self._stalled("all stages", _deadlock(rings), elapsed, HANDOVER_PATIENCE)):
            hangs.append(Hang(None, stalled, "deadlock: the stages wait for each other"))
        return hangs

    def _check_stage(self, child: Child, rings: Snapshot | None, elapsed: float) -> Hang | None:
        name, phase = child.name, child.phase
        if phase is Phase.LOADING:
            return self._check_loading(child, elapsed)
        stat = process_stat(child.pid)
        working = elapsed  # time in which it could have worked
        if name == "front":
            beat = self._front_beat()
            if hang := self._check_beat(child, beat, stat, elapsed):
                return hang
            if self._beat == (child.pid, beat):
                working = 0.0  # while its event loop is blocked, only that counts
            self._beat = child.pid, beat
        stopped = self._stalled((child.pid, "stopped"), True if stat and stat.stopped else None, elapsed)
        if phase in (Phase.ATTACHING, Phase.LEAVING):
            if stopped:  # the plain timeout: more time would not help it
                return Hang(child, stopped, f"it does not run while it should be {phase.value}", stopped=True)
            evidence: Hashable = (phase, child.generation)
            if stalled := self._stalled((child.pid, "handover"), evidence, working, HANDOVER_PATIENCE):
                return _hang(child, stalled, f"it is not done {phase.value}")
        return self._check_work(child, rings, working) if phase is Phase.SERVING and rings is not None else None

    def _check_work(self, child: Child, rings: Snapshot, elapsed: float) -> Hang | None:
        evidence = (child.generation, rings.positions(child.name)) if rings.is_due(child.name) else None
        if stalled := self._stalled((child.pid, "work"), evidence, elapsed):
            return _hang(child, stalled, "it has work and makes no progress")
        return self._check_prompts(child, elapsed) if child.name == "preprocess" else None

    def _check_beat(self, child: Child, beat: int, stat: ProcessStat | None, elapsed: float) -> Hang | None:
        """A front whose event loop is blocked hangs soon if it does not use the CPU, and later if it does."""
        stalled = self._timer.stalled_s((child.pid, "beat"), beat, elapsed)
        idle = self._timer.stalled_s((child.pid, "idle"), (beat, stat.cpu_ticks if stat else 0), elapsed)
        if self._is_too_long(idle):
            return _hang(child, stalled, "its event loop is blocked")
        if self._is_too_long(stalled, BUSY_PATIENCE):
            return _hang(child, stalled, "its event loop is blocked, though it uses the CPU")
        if self._warned_of != (child.pid, beat) and self._is_too_long(stalled, BUSY_PATIENCE / 2):
            self._warned_of = child.pid, beat
            most = BUSY_PATIENCE * max(self.timeout_s, SLOW_STEPS * self._stats.slowest_step_s())
            text = "%s is busy: computation has blocked its event loop for %.1f s; after %.1f s it is restarted"
            log.warning(text, child.title, stalled, most)
        return None

    def _check_prompts(self, child: Child, elapsed: float) -> Hang | None:
        """Its threads tokenize the same text for too long; they run at low priority, and no ring index shows it."""
        words = self._page.views.preprocess
        for lane in (PreprocessCounter.TOKENIZING, PreprocessCounter.TOKENIZING_LONG):
            request = int(words[lane])
            if stalled := self._stalled((child.pid, lane), request or None, elapsed, PROMPT_PATIENCE):
                return _hang(child, stalled, f"it does not finish tokenizing the prompt of request {request:016x}")
        return None

    def in_hand(self) -> tuple[int, ...]:
        """Requests that preprocess works on, or worked on when it died."""
        words = self._page.views.preprocess
        return tuple(dict.fromkeys(int(words[word]) for word in IN_HAND if words[word]))

    def _check_loading(self, child: Child, elapsed: float) -> Hang | None:
        stat = process_stat(child.pid)
        evidence = (child.heard, stat.cpu_ticks if stat else 0)
        patience = 1 if stat and stat.stopped else LOADING_PATIENCE
        if stalled := self._stalled((child.pid, "load"), evidence, elapsed, patience):
            return _hang(child, stalled, "loading makes no progress")
        age = time.monotonic() - child.began
        return _hang(child, age, "it is still loading") if age > LONGEST_LOADING_S else None

    def _stalled(self, key: Hashable, evidence: Hashable, elapsed: float, patience: int = 1) -> float:
        """Seconds without progress if they are too many, else 0."""
        stalled = self._timer.stalled_s(key, evidence, elapsed)
        return stalled if self._is_too_long(stalled, patience) else 0

    def _is_too_long(self, stalled: float, patience: float = 1) -> bool:
        if stalled < self.timeout_s * patience:
            return False
        return stalled >= SLOW_STEPS * patience * self._stats.slowest_step_s()

    def forget(self, child: Child) -> None:
        """The process is gone."""
        self._timer.forget(child.pid)


def _hang(child: Child, stalled: float, what: str) -> Hang:
    stat = process_stat(child.pid)
    return Hang(child, stalled, what, stopped=bool(stat and stat.stopped))


def _deadlock(rings: Snapshot | None) -> Hashable:
    """There is work, and no stage is due. What was changing before is no evidence of it."""
    if rings is None or not rings.has_work or any(map(rings.is_due, PARTS)):
        return None
    return tuple(map(rings.positions, PARTS))
