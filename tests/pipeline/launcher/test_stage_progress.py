"""Who is due: real rings in the states in which stages leave them."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

import ipc
from pipeline.launcher.stage_progress import RingGauges, StageEnds, StallTimer
from pipeline.wire.topology import ONE_OF_EACH, STAGES, Topology


class Rings:
    """A generation's rings, small, with every end attached by the test."""

    def __init__(self, stack, topology=ONE_OF_EACH, replica=0):
        self.rings = {
            spec.key: stack.enter_context(make(spec, len(topology.consumers(spec))))
            for spec in topology.rings
            if spec.replica == replica
        }
        self.producers = {name: ring.producer(spin_us=0) for name, ring in self.rings.items()}
        self.cursors = {
            name: [ring.consumer(cursor, spin_us=0) for cursor in range(ring.consumers)]
            for name, ring in self.rings.items()
        }
        self.consumers = {name: cursors[0] for name, cursors in self.cursors.items()}
        self.stages = [stage.key for stage in topology.users(replica)]
        self.gauges = RingGauges(topology, replica, self)
        self.threads = []

    def put(self, *names):
        for name in names:
            self.producers[name].write(bytes(64))

    def take(self, name, cursor=0):
        self.cursors[name][cursor].read().release()

    def wait(self, call, waits):
        """Somebody who sleeps in this call from now on."""
        thread = threading.Thread(target=swallow, args=(call,))
        thread.start()
        self.threads.append(thread)
        while not waits():
            time.sleep(0.001)

    def due(self):
        snapshot = self.gauges.snapshot()
        return {stage for stage in self.stages if snapshot.is_due(stage)}

    def end(self):
        for ring in self.rings.values():
            ring.revoke()
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()


def make(spec, consumers):
    if spec.flow.layout is None:
        return ipc.ByteRing.create(spec.key, capacity=1024, consumers=consumers)
    slots = 2 if spec.flow.name == "logits" else 4
    return ipc.SlotRing.create(spec.key, slots=slots, slot_size=64, consumers=consumers)


def swallow(call):
    with contextlib.suppress(ipc.RingClosed):
        call()


@pytest.fixture
def rings():
    with contextlib.ExitStack() as stack:
        made = Rings(stack)
        yield made
        made.end()


def test_every_ring_end_belongs_to_the_stage_that_has_it():
    for topology in (ONE_OF_EACH, Topology(fronts=2, replicas=3, ranks=2)):
        for stage in topology.stages:
            ends = [StageEnds.of(topology, stage, replica) for replica in topology.replicas_of(stage)]
            read = [ring for part in ends for ring, _ in (*part.driven_by, *part.needs)]
            in_order = sorted(stage.reads, key=lambda ring: (ring.replica, not ring.flow.is_work))
            assert read == [ring.key for ring in in_order]
            assert [ring for part in ends for ring in part.writes] == [ring.key for ring in stage.writes]


def test_nothing_queued_nobody_due(rings):
    assert rings.due() == set()
    assert not rings.gauges.snapshot().has_work


@pytest.mark.parametrize(
    ("ring", "stage"),
    [("requests", "preprocess"), ("results", "preprocess"), ("steps", "inference"), ("logits", "sampling"),
     ("replies", "front"), ("deltas", "front")],
)  # fmt: skip
def test_whoever_has_something_to_read_is_due(rings, ring, stage):
    rings.put(ring)
    assert rings.due() == {stage}
    rings.take(ring)
    assert rings.due() == set()


def test_what_waits_for_the_next_step_makes_nobody_due(rings):
    rings.put("rows", "tokens")
    assert rings.due() == set()
    assert not rings.gauges.snapshot().has_work


def test_a_slot_that_is_held_is_work_under_way(rings):
    rings.put("steps")
    held = rings.consumers["steps"].read()
    assert rings.due() == {"inference"}
    held.release()


def test_inference_that_waits_for_tokens_is_not_to_blame(rings):
    rings.put("steps")
    rings.wait(rings.consumers["tokens"].read, lambda: rings.gauges.snapshot()._states["tokens"].consumers_wait[0])
    assert rings.due() == set()
    assert rings.gauges.snapshot().has_work
    rings.put("logits")
    assert rings.due() == {"sampling"}


def test_sampling_that_waits_for_room_is_not_to_blame(rings):
    rings.put("logits", "results", "results", "results", "results")
    rings.wait(rings.producers["results"].reserve, lambda: rings.gauges.snapshot()._states["results"].producer_waits)
    assert rings.due() == {"preprocess"}


def test_positions_are_those_that_the_stage_moves(rings):
    before = {stage: rings.gauges.snapshot().positions(stage) for stage in STAGES}
    rings.put("logits")
    moved = {stage for stage in STAGES if rings.gauges.snapshot().positions(stage) != before[stage]}
    assert moved == {"inference"}
    rings.take("logits")
    moved = {stage for stage in STAGES if rings.gauges.snapshot().positions(stage) != before[stage]}
    assert moved == {"inference", "sampling"}


# ---- several ranks and fronts -------------------------------------------------------------------------------------


@pytest.fixture
def many():
    with contextlib.ExitStack() as stack:
        made = Rings(stack, Topology(fronts=2, replicas=2, ranks=2), replica=1)
        yield made
        made.end()


def test_each_rank_is_due_by_what_it_has_not_read(many):
    many.put("steps_1")
    assert many.due() == {"inference 1.0", "inference 1.1"}
    many.take("steps_1", cursor=1)
    assert many.due() == {"inference 1.0"}
    many.take("steps_1", cursor=0)
    assert many.due() == set()


def test_a_rank_that_waits_for_tokens_is_not_to_blame_and_the_other_is(many):
    many.put("steps_1")
    wait = many.cursors["tokens_1"][1].read
    many.wait(wait, lambda: many.gauges.snapshot()._states["tokens_1"].consumers_wait[1])
    assert many.due() == {"inference 1.0"}
    assert many.gauges.snapshot().has_work


def test_the_indices_of_all_ranks_are_their_progress(many):
    before = many.gauges.snapshot().positions("inference 1")
    many.put("steps_1")
    assert many.gauges.snapshot().positions("inference 1") == before
    many.take("steps_1", cursor=1)
    assert many.gauges.snapshot().positions("inference 1") != before


def test_a_front_is_driven_by_its_own_lane(many):
    many.put("deltas_1_1")
    assert many.due() == {"front 1"}
    many.put("requests_1_0")
    assert many.due() == {"front 1", "preprocess 1"}


# ---- stall timer ----------------------------------------------------------------------------------------------


def test_time_without_change_adds_up():
    timer = StallTimer()
    assert [timer.stalled_s("a", evidence, 0.5) for evidence in (1, 1, 1, 2, 2)] == [0, 0.5, 1.0, 0, 0.5]


def test_where_nothing_is_expected_no_time_passes():
    timer = StallTimer()
    assert [timer.stalled_s("a", evidence, 0.5) for evidence in (1, 1, None, None, 1, 1)] == [0, 0.5, 0, 0, 0, 0.5]


def test_one_is_forgotten_and_the_other_is_not():
    timer = StallTimer()
    for key in ((1, "work"), (2, "work"), "all stages"):
        timer.stalled_s(key, 0, 1.0)
        timer.stalled_s(key, 0, 1.0)
    timer.forget(1)
    assert [timer.stalled_s(key, 0, 1.0) for key in ((1, "work"), (2, "work"), "all stages")] == [0, 2, 2]
