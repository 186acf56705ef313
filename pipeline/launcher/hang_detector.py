"""Supervision by progress: samples what every process should be advancing, and finds those that hang.

Nothing is sent to a stage. Of one that serves, the indices of its rings are read; of one that loads, its CPU time; of
one that got an order, whether it was carried out; of the front, the counter that its event loop increments.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass

from pipeline.launcher.child import Attachment, Child, Phase
from pipeline.launcher.generation_progress import GenerationProgress, front_beat
from pipeline.launcher.process_stat import ProcessStat, process_stat
from pipeline.launcher.stage_progress import RingGauges, Snapshot, StallTimer
from pipeline.stats import IN_HAND, LANES, StatsPage, StatsReader
from pipeline.wire.rings import RingSet
from pipeline.wire.topology import INFERENCE, PREPROCESS

BUSY_CHECK_S, IDLE_CHECK_S = 0.2, 1.0
SLOW_STEPS = 10  # no progress is expected within this many times the slowest step known
BUSY_PATIENCE = 6  # times the timeout: a front that uses the CPU, which an endless loop does, too
LOADING_PATIENCE = 12  # times the timeout: a process that loads may wait for a disk or a device without using the CPU
PROMPT_PATIENCE = 12  # times the timeout: the longest text takes seconds to tokenize, even when CPUs are free
HANDOVER_PATIENCE = 2  # times the timeout: a stage that is to attach or detach ends its step first
LONGEST_LOADING_S = 1800.0  # a 7B checkpoint from a slow disk takes minutes

log = logging.getLogger("ringserve.launcher")


@dataclass(frozen=True, slots=True)
class Hang:
    """`child` is None for a deadlock of the stages of a replica, which is no single one's fault. `stopped`: the
    process does not run at all (SIGSTOP), which something else caused."""

    child: Child | None
    still_s: float
    what: str
    stopped: bool = False
    replica: int = 0


class HangDetector:
    """Call `check` whenever it is `due`. `timeout_s` is how long a process with work may make no progress."""

    def __init__(self, page: StatsPage, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.due = self._checked = time.monotonic()
        self._page, self._stats = page, StatsReader(page)
        self._timer = StallTimer()
        self._generations: dict[int, GenerationProgress] = {}  # by replica
        self._beats: dict[str, Hashable] = {}  # of each front: its pid and beat at the last check
        self._loading: list[Child] = []  # as of the last check
        self._warned_of: dict[str, Hashable] = {}  # pid and beat at which a front was reported as busy

    # ---- generations ----------------------------------------------------------------------------------------

    def begin(self, replica: int, rings: RingSet) -> None:
        """A generation is handed to the stages."""
        gauges = RingGauges(self._page.topology, replica, rings)
        self._generations[replica] = GenerationProgress(self._page, replica, gauges)

    def complete(self, replica: int) -> None:
        """Every stage serves in it."""
        self._generations[replica].complete()

    def end(self, replica: int) -> set[str]:
        """It is over. Returns the units that did something useful in it, or lived long."""
        generation = self._generations.pop(replica, None)
        self._stalled(("all stages", replica), None, 0)
        return set() if generation is None else set(generation.useful())

    # ---- checks ---------------------------------------------------------------------------------------------

    def check(self, children: Collection[Child]) -> list[Hang]:
        """The processes that hang now."""
        now, planned = time.monotonic(), self.due - self._checked
        elapsed = min(now - self._checked, 2 * planned)  # if this process was stopped, so perhaps were the others
        self._checked = now
        seen = {replica: generation.look() for replica, generation in self._generations.items()}
        busy = any(generation.busy for generation in self._generations.values())
        self.due = now + (BUSY_CHECK_S if busy else IDLE_CHECK_S)
        self._loading = [child for child in children if child.loading]
        hangs = [hang for child in children if (hang := self._check_stage(child, seen, elapsed))]
        return hangs or [*self._deadlocks(elapsed)]

    def _deadlocks(self, elapsed: float) -> Iterator[Hang]:
        for replica, generation in self._generations.items():
            evidence = generation.deadlock()
            if stalled := self._stalled(("all stages", replica), evidence, elapsed, HANDOVER_PATIENCE):
                yield Hang(None, stalled, "deadlock: the stages wait for each other", replica=replica)

    def _check_stage(self, child: Child, seen: Mapping[int, Snapshot], elapsed: float) -> Hang | None:
        if child.loading:
            return self._check_loading(child, elapsed)
        stat = process_stat(child.pid)
        if self.is_compiling(child):
            return self._check_progress(
                child, "compile", self._stats.compiled(), "compiling makes no progress", elapsed
            )
        working = elapsed  # time in which it could have worked
        if child.spec.is_front:
            beat = front_beat(self._page, child.name)
            if hang := self._check_beat(child, beat, stat, elapsed):
                return hang
            if self._beats.get(child.name) == (child.pid, beat):
                working = 0.0  # while its event loop is blocked, only that counts
            self._beats[child.name] = child.pid, beat
        stopped = self._stalled((child.pid, "stopped"), True if stat and stat.stopped else None, elapsed)
        for replica, attachment in child.attachments.items():
            if attachment.phase in (Phase.ATTACHING, Phase.LEAVING):
                hang = self._check_handover(child, replica, attachment, stopped, working)
            elif attachment.phase is Phase.SERVING and replica in seen:
                hang = self._check_work(child, replica, seen[replica], working)
            else:
                hang = None
            if hang is not None:
                return hang
        return None

    def _check_handover(
        self, child: Child, replica: int, attachment: Attachment, stopped: float, elapsed: float
    ) -> Hang | None:
        phase = attachment.phase
        if stopped:  # the plain timeout: more time would not help it
            return Hang(child, stopped, f"it does not run while it should be {phase.value}", stopped=True)
        evidence: Hashable = (phase, attachment.generation)
        if stalled := self._stalled((child.pid, "handover", replica), evidence, elapsed, HANDOVER_PATIENCE):
            return _hang(child, stalled, f"it is not done {phase.value}")
        return None

    def _check_work(self, child: Child, replica: int, rings: Snapshot, elapsed: float) -> Hang | None:
        generation = child.attachments[replica].generation
        evidence = (generation, rings.positions(child.spec.unit)) if rings.is_due(child.name) else None
        if stalled := self._stalled((child.pid, "work", replica), evidence, elapsed):
            return _hang(child, stalled, "it has work and makes no progress")
        return self._check_prompts(child, elapsed) if child.spec.name == PREPROCESS.name else None

    def _check_beat(self, child: Child, beat: int, stat: ProcessStat | None, elapsed: float) -> Hang | None:
        """A front whose event loop is blocked hangs soon if it does not use the CPU, and later if it does."""
        stalled = self._timer.stalled_s((child.pid, "beat"), beat, elapsed)
        idle = self._timer.stalled_s((child.pid, "idle"), (beat, stat.cpu_ticks if stat else 0), elapsed)
        if self._is_too_long(idle):
            return _hang(child, stalled, "its event loop is blocked")
        if self._is_too_long(stalled, BUSY_PATIENCE):
            return _hang(child, stalled, "its event loop is blocked, though it uses the CPU")
        if self._warned_of.get(child.name) != (child.pid, beat) and self._is_too_long(stalled, BUSY_PATIENCE / 2):
            self._warned_of[child.name] = child.pid, beat
            most = BUSY_PATIENCE * max(self.timeout_s, SLOW_STEPS * self._stats.slowest_step_s())
            text = "%s is busy: computation has blocked its event loop for %.1f s; after %.1f s it is restarted"
            log.warning(text, child.title, stalled, most)
        return None

    def _check_prompts(self, child: Child, elapsed: float) -> Hang | None:
        """Its threads tokenize the same text for too long; they run at low priority, and no ring index shows it."""
        words = self._page.counters(child.name)
        for lane in LANES:
            request = int(words[lane])
            if stalled := self._stalled((child.pid, lane), request or None, elapsed, PROMPT_PATIENCE):
                return _hang(child, stalled, f"it does not finish tokenizing the prompt of request {request:016x}")
        return None

    def in_hand(self, child: Child) -> tuple[int, ...]:
        """Requests that it works on, or worked on when it died, where it publishes them."""
        if child.spec.name != PREPROCESS.name:
            return ()
        words = self._page.counters(child.name)
        return tuple(dict.fromkeys(int(words[word]) for word in IN_HAND if words[word]))

    def _check_loading(self, child: Child, elapsed: float) -> Hang | None:
        """A rank may wait for one that takes longer to load."""
        others = [each for each in self._loading if each.spec.unit == child.spec.unit and each is not child]
        done = (child.heard, *((each.heard, process_stat(each.pid)) for each in others))
        if hang := self._check_progress(child, "load", done, "loading makes no progress", elapsed):
            return hang
        age = time.monotonic() - child.began
        return _hang(child, age, "it is still loading") if age > LONGEST_LOADING_S else None

    def _check_progress(self, child: Child, key: str, done: Hashable, what: str, elapsed: float) -> Hang | None:
        """It uses the CPU, or gets something done."""
        stat = process_stat(child.pid)
        evidence = (done, stat.cpu_ticks if stat else 0)
        patience = 1 if stat and stat.stopped else LOADING_PATIENCE
        stalled = self._stalled((child.pid, key), evidence, elapsed, patience)
        return _hang(child, stalled, what) if stalled else None

    def is_compiling(self, child: Child) -> bool:
        """Between two steps; or it was when it died, and then no request is to blame."""
        return child.spec.name == INFERENCE.name and self._stats.is_compiling(child.name)

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
