"""Figures of preprocess in the statistics."""

from __future__ import annotations

from types import SimpleNamespace

from pipeline.preprocess.blocks import BlockManager
from pipeline.preprocess.stage import Gauges
from pipeline.stats import Counters, PreprocessCounter, RingEnds, StatsReader


def scheduler(**counted):
    stats = SimpleNamespace(**({"preemptions": 0, "admitted": 0, "cancelled": 0} | counted))
    return SimpleNamespace(blocks=BlockManager(11, 4), stats=stats, running=3)


def test_counters_go_on_from_generation_to_generation_and_gauges_do_not(page):
    for generation in (1, 2):
        gauges = Gauges(Counters(page, "preprocess"), RingEnds(page, "preprocess"))
        for steps in (5, 7):  # totals of this generation
            gauges.publish(scheduler(preemptions=steps - 4, admitted=steps), steps)
        seen = StatsReader(page).counters(PreprocessCounter)
        assert (seen["steps"], seen["preemptions"], seen["admitted"]) == (
            7 * generation,
            3 * generation,
            7 * generation,
        )
        assert (seen["running"], seen["kv_blocks_total"], seen["kv_blocks_used"]) == (3, 10, 0)
