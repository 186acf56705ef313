"""The page of a server of several fronts, replicas and ranks."""

from __future__ import annotations

import os

import pytest

import ipc
from pipeline.stats import (
    Counters,
    FrontCounter,
    Histograms,
    InferenceCounter,
    PreprocessCounter,
    RequestHistogram,
    RingEnds,
    SamplingCounter,
    StageState,
    StatsHandle,
    StatsPage,
    StatsReader,
    StepHistogram,
    StepLog,
    Supervision,
    open_stats,
)
from pipeline.wire.topology import FRONT, INFERENCE, PREPROCESS, SAMPLING, Topology
from tests.pipeline.stats.test_writers import step

MANY = Topology(fronts=2, replicas=3, ranks=2)


@pytest.fixture
def page():
    page = StatsPage.create(MANY)
    page.unlink()
    yield page
    page.close()


def test_counters_of_one_stage_and_of_all_together(page):
    for replica in range(3):
        Counters(page, MANY.find(PREPROCESS, replica).key).set(PreprocessCounter.WAITING, 10**replica)
    for front in range(2):
        Counters(page, MANY.find(FRONT, rank=front).key).add(FrontCounter.REQUESTS, 1 + front)
    reader = StatsReader(page)
    assert reader.counters(PreprocessCounter, "preprocess 1")["waiting"] == 10
    assert reader.counters(PreprocessCounter)["waiting"] == 111
    assert reader.counters(FrontCounter)["requests"] == 3
    for replica, rank in ((0, 0), (0, 1), (2, 1)):
        Counters(page, MANY.find(INFERENCE, replica, rank).key).set(InferenceCounter.STEPS, 7)
    assert reader.counters(InferenceCounter)["steps"] == 7  # ranks do the same: of each replica the first
    page.reset("preprocess 1")
    assert reader.counters(PreprocessCounter)["waiting"] == 101


def test_histograms_of_one_and_of_all_together(page):
    Histograms(page, StepHistogram, 2).observe(StepHistogram.TOKENS, 5, 3)
    Histograms(page, StepHistogram, 0).observe(StepHistogram.TOKENS, 7)
    Histograms(page, RequestHistogram, 1).observe(RequestHistogram.TEXTS, 2)
    reader = StatsReader(page)
    assert [reader.histogram(StepHistogram.TOKENS, replica).sum for replica in range(3)] == [7, 0, 15]
    assert (reader.histogram(StepHistogram.TOKENS).sum, reader.histogram(StepHistogram.TOKENS).count) == (22, 4)
    assert reader.histogram(RequestHistogram.TEXTS).sum == 2


def test_steps_of_each_replica(page):
    for replica in (0, 2):
        log = StepLog(page, replica)
        for number in range(1, 3 + replica):
            log.record(*step(number, number * 40_000, needs=number - 1))
    reader = StatsReader(page)
    assert [len(reader.steps(replica=replica)) for replica in range(3)] == [2, 0, 4]
    assert [reader.last_step(replica)[0] for replica in range(3)] == [2, 0, 4]
    assert reader.slowest_step_s() == 20e-6
    overheads = [
        reader.counters(SamplingCounter, MANY.find(SAMPLING, replica).key)["overhead_sampling_ns"]
        for replica in range(3)
    ]
    assert overheads[0] > 0 == overheads[1]
    assert overheads[2] == 3 * overheads[0]


def test_a_server_is_ready_when_one_replica_is(page):
    reader = StatsReader(page)
    for stage in MANY.replica(0)[1:] + MANY.replica(1):
        assert not reader.ready
        Counters(page, stage.key).set_ready()
    assert reader.ready
    assert reader.pids() == {stage.key: os.getpid() for stage in MANY.replica(0)[1:] + MANY.replica(1)}


def test_what_the_launcher_says_of_each(page):
    launcher, reader = Supervision(page), StatsReader(page)
    assert not reader.has_served
    launcher.set_generation(2, 5)
    launcher.set_state("inference 2.1", StageState.HUNG)
    launcher.add_restart("inference 2.1")
    assert reader.has_served
    assert [reader.generation(replica) for replica in range(3)] == [0, 0, 5]
    assert [stage.key for stage in MANY.stages if reader.state(stage.key) is StageState.HUNG] == ["inference 2.1"]
    assert {stage.key: reader.restarts(stage.key) for stage in MANY.stages if reader.restarts(stage.key)} == {
        "inference 2.1": 1,
    }  # fmt: skip


def test_a_broadcast_ring_is_as_full_as_its_slowest_rank_leaves_it(page):
    with ipc.SlotRing.create("steps_1", slots=4, slot_size=64, consumers=2) as ring:
        producer, ranks = ring.producer(), [ring.consumer(rank) for rank in range(2)]
        stages = [MANY.find(PREPROCESS, 1), *(MANY.find(INFERENCE, 1, rank) for rank in range(2))]
        ends = [RingEnds(page, stage.key, {"steps_1": ring}) for stage in stages]
        for _ in range(3):
            producer.write(bytes(64))
        ranks[0].read().release()
        ranks[1].read().release()
        ranks[1].read().release()
        for end in ends:
            end.copy()
            end.follow({})
        del end, ends
        (seen,) = [reading for reading in StatsReader(page).rings() if reading.capacity]
        assert (seen.name, seen.used, [end.done for end in seen.consumers]) == ("steps_1", 2, [1, 2])
        assert [end.stage.rank for end in seen.consumers] == [0, 1]
        for end in (producer, *ranks):
            end.close()


def test_whose_page_it_is_goes_with_its_handle(page):
    other = open_stats(page.handle)
    assert other.topology == MANY
    other.close()
    with pytest.raises(ipc.CorruptRingError, match="another layout"):
        StatsPage.from_handle(StatsHandle(os.dup(page.handle.fd)))
