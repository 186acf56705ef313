"""What `/metrics` shows of preprocess: plain stores into the statistics page."""

from __future__ import annotations

from pipeline.preprocess.scheduler import Scheduler
from pipeline.stats import Counters, PreprocessCounter, RingEnds

_COUNTED = (
    PreprocessCounter.STEPS,
    PreprocessCounter.PREFIX_QUERIES,
    PreprocessCounter.PREFIX_HITS,
    PreprocessCounter.PREEMPTIONS,
    PreprocessCounter.ADMITTED,
    PreprocessCounter.CANCELLED,
)


class Gauges:
    """Made for a generation; counters go on where those of earlier generations have ended."""

    def __init__(self, counters: Counters, ends: RingEnds) -> None:
        self._counters, self._ends = counters, ends
        self._before = [counters.get(counter) for counter in _COUNTED]

    def publish(self, scheduler: Scheduler, steps: int) -> None:
        blocks, stats, counters = scheduler.blocks, scheduler.stats, self._counters
        counted = (steps, blocks.stats.queries, blocks.stats.hits, stats.preemptions, stats.admitted, stats.cancelled)
        for counter, before, count in zip(_COUNTED, self._before, counted, strict=True):
            counters.set(counter, before + count)
        counters.set(PreprocessCounter.RUNNING, scheduler.running)
        counters.set(PreprocessCounter.KV_BLOCKS_USED, blocks.used)
        counters.set(PreprocessCounter.KV_BLOCKS_TOTAL, blocks.num_blocks - 1)
        counters.set(PreprocessCounter.CACHED_BLOCKS, blocks.cached)
        self._ends.copy()
