"""Python's cyclic garbage collector, kept off the step path.

Objects made at start-up are frozen: they live as long as the process, and are not traversed. Stages on the step path
then collect nothing at all while they serve: their steps leave no cycles behind
(tests/pipeline/runtime/test_gc_policy.py), and reference counts free everything else at once. They collect between
two generations. Requests and connections do leave cycles; in the front the collector stays on, with little to do.
"""

from __future__ import annotations

import gc
import time

from pipeline.stats import GC_PAUSE_NS, StatsPage
from pipeline.wire.topology import Role


def freeze_gc(role: Role) -> None:
    """Call it when everything expensive has been loaded."""
    gc.collect()
    gc.freeze()
    if role.critical:
        gc.disable()


class PauseMeter:
    """Records the longest garbage collection on the statistics page. It runs inside the collector: no allocation."""

    def __init__(self, page: StatsPage, stage: str) -> None:
        self._words = memoryview(page.counters(stage))
        self._began = 0

    def start(self) -> None:
        """From here on a collection delays requests. Twice is harmless."""
        self.stop()
        gc.callbacks.append(self._on_collection)

    def stop(self) -> None:
        """Before collections that delay no request. Twice is harmless."""
        if self._on_collection in gc.callbacks:
            gc.callbacks.remove(self._on_collection)

    def _on_collection(self, phase: str, _: dict[str, int]) -> None:
        now = time.monotonic_ns()
        if phase == "start":
            self._began = now
        elif now - self._began > self._words[GC_PAUSE_NS]:
            self._words[GC_PAUSE_NS] = now - self._began
