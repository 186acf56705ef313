"""What stages write: steps, the ends of their rings, pauses."""

from __future__ import annotations

import gc
import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ipc
from pipeline.stats import (
    KEY_NAME,
    STEP_RECORDS,
    KeyCounter,
    KeyCounters,
    PauseMeter,
    RingEnds,
    SamplingCounter,
    StatsPage,
    StatsReader,
    StepColumn,
    StepHistogram,
    StepLog,
    Work,
)
from pipeline.stats.counters import KEY_ROWS
from pipeline.wire.step import HEADER_WORDS, STAMP_WORDS, Choice, Head
from pipeline.wire.topology import FLOWS, ONE_OF_EACH
from pipeline.wire.topology import STAGES as ALL

STAGES = ("preprocess", "inference", "sampling")


def step(number, base, *, needs=0, tokens=3, rows=2):
    head, stamps = np.zeros(HEADER_WORDS, np.int64), np.zeros(STAMP_WORDS, np.int64)
    head[[Head.STEP, Head.DEPENDS_ON_STEP, Head.TOKENS, Head.ROWS]] = number, needs, tokens, rows
    head[Head.CHOSEN_BY_SAMPLING] = Choice.DRAWN
    # scheduled, taken, launched, computed, received, sampled, sent, begun
    stamps[:] = np.array([1_000, 2_000, 5_000, 25_000, 28_000, 36_000, 50_000, 400]) + base
    return head, stamps


def test_a_step_is_split_by_its_stamps(page):
    log = StepLog(page)
    log.record(*step(1, 0))
    log.record(*step(2, 40_000, needs=1))  # its tokens came at 36 µs, it was launched at 45 µs
    log.record(*step(3, 900_000))  # nobody waited for it
    sums = {time: StatsReader(page).histogram(time) for time in StepHistogram}
    per_step = {
        StepHistogram.SCHEDULE: 0.6, StepHistogram.LAUNCH: 3, StepHistogram.DEVICE: 20, StepHistogram.PUBLISH: 3,
        StepHistogram.SAMPLE: 8,
    }  # fmt: skip
    for time, us in per_step.items():
        assert sums[time].sum == pytest.approx(3 * us * 1e-6)
        assert sum(sums[time].counts) == 3
    assert sums[StepHistogram.FEEDBACK].sum == pytest.approx(9e-6)
    assert sums[StepHistogram.WAIT_FOR_DESCRIPTOR].sum == pytest.approx(17e-6)
    assert sum(sums[StepHistogram.FEEDBACK].counts) == 1


# Stamps of the second of two steps in a row, in µs; device of the first done at 25, tokens of the first known at 36
GAPS = {  # first foreseen, second begun; second scheduled, taken, launched; due to preprocess, inference, sampling
    "inference waits for the tokens": ((0, 0), (26, 30, 40), (0, 4, 11)),
    "inference knows the tokens": ((1, 0), (20, 26, 27), (0, 2, 0)),
    "planned only when the results were known": ((1, 37), (39, 40, 42), (3, 3, 11)),
    "the descriptor comes late": ((1, 24), (28, 29, 31), (3, 3, 0)),
    "the descriptor comes later than the tokens": ((0, 24), (38, 39, 41), (2, 3, 11)),
    "the device did not stand still": ((1, 0), (20, 24, 25), (0, 0, 0)),
}


@pytest.mark.parametrize(("before", "after", "due_to"), GAPS.values(), ids=GAPS)
def test_whom_the_overhead_was_due_to(page, before, after, due_to):
    foreseen, begun = before
    scheduled, taken, launched = after
    log = StepLog(page)
    head, stamps = step(1, 0)
    head[Head.CHOSEN_BY_SAMPLING] = not foreseen
    log.record(head, stamps)
    head, stamps = step(2, 0, needs=1)
    stamps[:] = np.array([scheduled, taken, launched, 60, 70, 80, 90, begun]) * 1_000
    log.record(head, stamps)
    gap = StatsReader(page).histogram(StepHistogram.OVERHEAD)
    assert (gap.count, gap.sum) == (1, pytest.approx((launched - 25) / 1e6))
    counted = StatsReader(page).counters(SamplingCounter)
    assert [counted[f"overhead_{stage}_ns"] for stage in STAGES] == [1_000 * us for us in due_to]


@given(st.lists(st.tuples(st.lists(st.integers(0, 10**6), min_size=8, max_size=8), st.booleans()), max_size=8))
def test_the_parts_of_the_overhead_are_its_sum(steps):
    page = StatsPage.create()
    page.unlink()
    log = StepLog(page)
    for number, (times, foreseen) in enumerate(steps, 1):
        head, stamps = step(number, 0, needs=number - 1)
        head[Head.CHOSEN_BY_SAMPLING], stamps[:] = not foreseen, times
        log.record(head, stamps)
    counted = StatsReader(page).counters(SamplingCounter)
    parts = [counted[f"overhead_{stage}_ns"] for stage in STAGES]
    overhead = StatsReader(page).histogram(StepHistogram.OVERHEAD)
    assert min(parts) >= 0
    assert sum(parts) == round(overhead.sum * 1e9)
    assert overhead.count == max(len(steps) - 1, 0)
    page.close()


def test_steps_that_are_not_in_a_row_have_no_overhead(page):
    log = StepLog(page)
    log.record(*step(1, 0))
    log.record(*step(2, 900_000))  # nobody waited for it
    log.record(*step(5, 1_800_000, needs=4))  # the one before was another process's
    assert StatsReader(page).histogram(StepHistogram.OVERHEAD).count == 0
    assert StatsReader(page).histogram(StepHistogram.TOKENS).sum == 9


@pytest.fixture
def rings():
    rings = {flow.name: ipc.ByteRing.create(flow.name, capacity=1 << 12) for flow in FLOWS if flow.layout is None}
    rings |= {flow.name: ipc.SlotRing.create(flow.name, slots=4, slot_size=64) for flow in FLOWS if flow.layout}
    yield rings
    for ring in rings.values():
        ring.__exit__()


def test_ends_of_rings_are_seen_as_they_count(page, rings):
    every = {stage: RingEnds(page, stage, rings) for stage in ALL}
    with rings["steps"].producer() as steps, rings["steps"].consumer() as inference:
        for _ in range(3):
            steps.write(b"x" * 64)
        inference.read().release()
        with pytest.raises(ipc.RingTimeout):
            rings["deltas"].consumer().read(timeout=0.01)
        before = {ring.name: ring for ring in StatsReader(page).rings()}["steps"]
        assert (before.used, before.capacity) == (0, 4)  # nobody has copied yet
        for ends in every.values():
            ends.copy()
        seen = {ring.name: ring for ring in StatsReader(page).rings()}
        assert (seen["steps"].used, seen["steps"].consumer.done, seen["steps"].spec.flow.unit) == (2, 1, "slots")
        for name, ring in rings.items():
            snapshot = ring.snapshot()
            assert (seen[name].capacity, seen[name].used) == (ring.capacity, snapshot.occupancy(0))
            for end, side in ((seen[name].producer, snapshot.producer), (seen[name].consumer, snapshot.consumers[0])):
                assert end.stage in ONE_OF_EACH.stages
                assert {key: getattr(end, key) for key in side.counters if key != "heartbeat"} == {
                    key: value for key, value in side.counters.items() if key != "heartbeat"
                }
        assert seen["deltas"].consumer.waits == 1
        assert (seen["deltas"].producer.stage.name, seen["deltas"].consumer.stage.name) == ("sampling", "front")
    page.reset("inference")
    assert {ring.name: ring for ring in StatsReader(page).rings()}["steps"].consumer.done == 0


def test_a_ring_is_never_fuller_than_it_is(page, rings):
    """The two ends are copied at different times."""
    producer, consumer = rings["steps"].producer(), rings["steps"].consumer()
    preprocess, inference = RingEnds(page, "preprocess", rings), RingEnds(page, "inference", rings)
    for _ in range(9):
        producer.write(b"x" * 64)
        consumer.read().release()
    inference.copy()
    assert {ring.name: ring.used for ring in StatsReader(page).rings()}["steps"] == 0
    page.reset("inference")
    preprocess.copy()
    assert {ring.name: ring.used for ring in StatsReader(page).rings()}["steps"] == 4


def test_the_log_keeps_the_last_steps_in_order(page):
    log = StepLog(page)
    for number in range(1, STEP_RECORDS + 101):
        log.record(*step(number, number * 100_000))
    steps = StatsReader(page).steps()
    assert steps[:, StepColumn.STEP].tolist() == list(range(101, STEP_RECORDS + 101))
    assert set(steps[:, StepColumn.ROWS]) == {2}
    some = StatsReader(page).steps(since_ns=200 * 100_000 + 50_000, until_ns=210 * 100_000 + 49_999)
    assert some[:, StepColumn.STEP].tolist() == list(range(200, 210))


def test_recording_a_step_keeps_no_memory(page):
    import sys

    log = StepLog(page)
    records = [step(number, number * 100_000, needs=number - 1) for number in range(1, 201)]
    log.record(*records[0])
    before = sys.getallocatedblocks()
    for record in records[1:]:
        log.record(*record)
    assert sys.getallocatedblocks() - before < 10


def test_the_longest_pause_is_noted(page):
    meter = PauseMeter(page, "sampling")
    meter.start()
    try:
        gc.collect()
        longest = StatsReader(page).gc_pause_s("sampling")
        assert longest > 0
        for _ in range(3):
            gc.collect(0)
        assert StatsReader(page).gc_pause_s("sampling") >= longest
        assert StatsReader(page).gc_pause_s("inference") == 0
    finally:
        meter.stop()


def key(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


def test_what_keys_have_used_is_counted_on_by_the_next_front(page):
    one, used = KeyCounters(page, 0), {KeyCounter.REQUESTS: 1, KeyCounter.GENERATED_TOKENS: 7}
    for name in (key(1), key(2), key(1), ""):
        one.add(name, used)
    KeyCounters(page, 0).add(key(2), used)  # a front that was started again
    KeyCounters(page, 0).add(key(3), used)
    found = StatsReader(page).keys()
    assert {name: (counts["requests"], counts["generated_tokens"]) for name, counts in found.items()} == {
        key(1)[:KEY_NAME]: (2, 14), key(2)[:KEY_NAME]: (2, 14), key(3)[:KEY_NAME]: (1, 7), "": (1, 7),
    }  # fmt: skip


def test_more_keys_than_rows_are_counted_together(page):
    counters = KeyCounters(page, 0)
    for number in range(KEY_ROWS + 3):
        counters.add(key(number), {KeyCounter.REQUESTS: 1})
    found = StatsReader(page).keys()
    assert len(found) == KEY_ROWS
    assert found[""]["requests"] == 4


def test_shares_of_the_devices_time_add_up(page):
    stats, log = StatsReader(page), StepLog(page)
    before = stats.work()
    for number, tokens in enumerate((40, 4, 4), 1):
        log.record(*step(number, number * 100_000, tokens=tokens))
    after = stats.work()
    assert (after.device_ns - before.device_ns, after.tokens - before.tokens) == (60_000, 48)
    assert before.share(after, 36) + before.share(after, 12) == 60_000
    assert before.share(after, 100) == 60_000
    assert after.share(after, 5) == Work(0, 0).share(Work(7, 0), 1) == 0
