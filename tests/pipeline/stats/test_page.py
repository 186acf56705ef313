"""The statistics page: its layout, and who may open it."""

from __future__ import annotations

import os

import pytest

import ipc
from pipeline.stats import (
    Counters,
    PreprocessCounter,
    SamplingCounter,
    StatsHandle,
    StatsPage,
    StatsReader,
    open_stats,
    stats_layout,
)
from pipeline.wire.topology import ONE_OF_EACH, Topology


def test_each_writer_has_its_own_cache_lines():
    for topology in (ONE_OF_EACH, Topology(fronts=2, replicas=3, ranks=2)):
        layout = stats_layout(topology)
        for field, offset in zip(layout.fields, layout.offsets, strict=True):
            assert offset % 128 == 0, field.name
            assert field.nbytes % 128 == 0, field.name


def test_counters_are_seen_through_another_mapping(page):
    other = open_stats(page.handle)
    counters = Counters(page, "preprocess")
    counters.set(PreprocessCounter.WAITING, 7)
    counters.add(PreprocessCounter.PREEMPTIONS)
    counters.add(PreprocessCounter.PREEMPTIONS, 2)
    seen = StatsReader(other).counters(PreprocessCounter)
    assert (seen["waiting"], seen["preemptions"], seen["running"]) == (7, 3, 0)
    assert set(StatsReader(other).counters(SamplingCounter).values()) == {0}
    other.reset("preprocess")
    assert StatsReader(page).counters(PreprocessCounter)["waiting"] == 0
    other.close()


def test_another_layout_is_refused(page):
    page.views.identity[0] ^= 1
    with pytest.raises(ipc.CorruptRingError, match="same version"):
        open_stats(page.handle)
    small = ipc.Segment.create("stats", 4096)
    with pytest.raises(ipc.CorruptRingError, match="another layout"):
        StatsPage.from_handle(StatsHandle(os.dup(small.fd)))
    small.unlink()
    small.close()
