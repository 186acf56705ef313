"""What a reader makes of the page as a whole."""

from __future__ import annotations

from pipeline.stats import Counters, StatsReader


def test_ready_when_all_three_stages_are(page):
    reader = StatsReader(page)
    for stage in ("preprocess", "inference", "sampling"):
        assert not reader.ready
        Counters(page, stage).set(0, 1)
    assert reader.ready
