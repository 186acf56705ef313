"""The statistics page: layout, writers, reader."""

from __future__ import annotations

import os

import numpy as np
import pytest

import ipc
from pipeline.descriptors import HEADER_WORDS, STAMP_WORDS, Head
from pipeline.stats import (
    LAYOUT,
    STEP_RECORDS,
    Counters,
    Histograms,
    PreprocessCounter,
    RequestTime,
    SamplingCounter,
    StatsHandle,
    StatsPage,
    StatsReader,
    StepColumn,
    StepLog,
    StepTime,
    edges_s,
    open_stats,
)


@pytest.fixture
def page():
    page = StatsPage.create()
    yield page
    page.unlink()
    page.close()


def step(number, base, *, needs=0, tokens=3, rows=2):
    head, stamps = np.zeros(HEADER_WORDS, np.int64), np.zeros(STAMP_WORDS, np.int64)
    head[[Head.STEP, Head.NEEDS, Head.LIVE_TOKENS, Head.LIVE_ROWS]] = number, needs, tokens, rows
    # scheduled, taken, launched, computed, received, sampled, sent, begun
    stamps[:] = np.array([1_000, 2_000, 5_000, 25_000, 28_000, 36_000, 50_000, 400]) + base
    return head, stamps


def test_each_writer_has_its_own_cache_lines():
    for field, offset in zip(LAYOUT.fields, LAYOUT.offsets, strict=True):
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


def test_ready_when_all_three_stages_are(page):
    reader = StatsReader(page)
    for stage in ("preprocess", "inference", "sampling"):
        assert not reader.ready
        Counters(page, stage).set(0, 1)
    assert reader.ready


@pytest.mark.parametrize("histogram", [*StepTime, *RequestTime])
def test_every_bucket_of_a_histogram(page, histogram):
    histograms = Histograms(page, type(histogram))
    edges = edges_s(histogram)
    for edge in edges:
        histograms.observe(histogram, round(edge * 1e9))  # an edge belongs to the bucket below it
    histograms.observe(histogram, round(edges[-1] * 1e9) + 1, count=5)
    seen = StatsReader(page).histogram(histogram)
    assert seen.counts == (1,) * len(edges) + (5,)
    assert seen.sum_s == pytest.approx(sum(edges) + 5 * edges[-1], rel=1e-6)
    others = [other for other in [*StepTime, *RequestTime] if other is not histogram]
    assert not any(sum(StatsReader(page).histogram(other).counts) for other in others)


def test_a_step_is_split_by_its_stamps(page):
    log = StepLog(page)
    log.record(*step(1, 0))
    log.record(*step(2, 40_000, needs=1))  # its tokens came at 36 µs, it was launched at 45 µs
    log.record(*step(3, 900_000))  # nobody waited for it
    sums = {time: StatsReader(page).histogram(time) for time in StepTime}
    per_step = {
        StepTime.SCHEDULE: 0.6, StepTime.LAUNCH: 3, StepTime.DEVICE: 20, StepTime.PUBLISH: 3, StepTime.SAMPLE: 8,
    }  # fmt: skip
    for time, us in per_step.items():
        assert sums[time].sum_s == pytest.approx(3 * us * 1e-6)
        assert sum(sums[time].counts) == 3
    assert sums[StepTime.FEEDBACK].sum_s == pytest.approx(9e-6)
    assert sums[StepTime.WAIT_FOR_DESCRIPTOR].sum_s == pytest.approx(17e-6)
    assert sum(sums[StepTime.FEEDBACK].counts) == 1


def test_the_log_keeps_the_last_steps_in_order(page):
    log = StepLog(page)
    for number in range(1, STEP_RECORDS + 101):
        log.record(*step(number, number * 100_000))
    steps = StatsReader(page).steps()
    assert steps[:, StepColumn.STEP].tolist() == list(range(101, STEP_RECORDS + 101))
    assert set(steps[:, StepColumn.ROWS]) == {2}
    some = StatsReader(page).steps(since_ns=200 * 100_000 + 50_000, until_ns=210 * 100_000 + 49_999)
    assert some[:, StepColumn.STEP].tolist() == list(range(200, 210))


def test_another_layout_is_refused(page):
    page.views.identity[0] ^= 1
    with pytest.raises(ipc.CorruptRingError, match="same version"):
        open_stats(page.handle)
    small = ipc.Segment.create("stats", 4096)
    with pytest.raises(ipc.CorruptRingError, match="another layout"):
        StatsPage.from_handle(StatsHandle(os.dup(small.fd)))
    small.unlink()
    small.close()


def test_recording_a_step_keeps_no_memory(page):
    import sys

    log = StepLog(page)
    records = [step(number, number * 100_000, needs=number - 1) for number in range(1, 201)]
    log.record(*records[0])
    before = sys.getallocatedblocks()
    for record in records[1:]:
        log.record(*record)
    assert sys.getallocatedblocks() - before < 10
