"""Python's cyclic garbage collector, kept off the step path.

What start-up made is frozen: it stays, and need not be looked at again. Stages on the step path then collect nothing
at all while they serve: their steps leave no cycles behind (tests/pipeline/runtime/test_gc_policy.py), and reference
counts free everything else at once. They collect between two generations. Where requests are parsed and connections
come and go, cycles do arise; there the collector stays on, and has little to look at.
"""

from __future__ import annotations

import gc
import time

from pipeline.stats import GC_PAUSE_NS, StatsPage

QUIET = ("inference", "sampling")
"""Stages that do not collect while they serve."""


def freeze_gc(stage: str) -> None:
    """Everything that is dear has been loaded."""
    gc.collect()
    gc.freeze()
    if stage in QUIET:
        gc.disable()


class PauseMeter:
    """Notes the longest pause for a collection on the statistics page, and only there: it is called from within."""

    def __init__(self, page: StatsPage, stage: str) -> None:
        self._words = memoryview(getattr(page.views, stage))
        self._began = 0

    def start(self) -> None:
        """From here on requests may wait for a collection. Twice is harmless."""
        self.stop()
        gc.callbacks.append(self._on_collection)

    def stop(self) -> None:
        """Before collections for which nobody waits. Twice is harmless."""
        if self._on_collection in gc.callbacks:
            gc.callbacks.remove(self._on_collection)

    def _on_collection(self, phase: str, _: dict[str, int]) -> None:
        now = time.monotonic_ns()
        if phase == "start":
            self._began = now
        elif now - self._began > self._words[GC_PAUSE_NS]:
            self._words[GC_PAUSE_NS] = now - self._began
