"""Who is due: real rings in the states in which stages leave them."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

import ipc
from pipeline.launcher.stage_progress import PARTS, RingGauges, StallTimer
from pipeline.wire.rings import ENDS


class Rings:
    """A generation's rings, small, with every end attached by the test."""

    def __init__(self, stack):
        slots = {"steps": 4, "logits": 2, "tokens": 4, "results": 4}
        self.rings = {
            name: stack.enter_context(
                ipc.SlotRing.create(name, slots=slots[name], slot_size=64)
                if name in slots
                else ipc.ByteRing.create(name, capacity=1024)
            )
            for name in ("requests", "replies", "rows", "steps", "tokens", "logits", "results", "deltas")
        }
        self.producers = {name: ring.producer(spin_us=0) for name, ring in self.rings.items()}
        self.consumers = {name: ring.consumer(spin_us=0) for name, ring in self.rings.items()}
        self.gauges = RingGauges(self)
        self.threads = []

    def put(self, *names):
        for name in names:
            self.producers[name].write(bytes(64))

    def take(self, name):
        self.consumers[name].read().release()

    def wait(self, call, waits):
        """Somebody who sleeps in this call from now on."""
        thread = threading.Thread(target=swallow, args=(call,))
        thread.start()
        self.threads.append(thread)
        while not waits():
            time.sleep(0.001)

    def due(self):
        snapshot = self.gauges.snapshot()
        return {stage for stage in PARTS if snapshot.is_due(stage)}

    def end(self):
        for ring in self.rings.values():
            ring.revoke()
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()


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
    for stage, part in PARTS.items():
        assert sorted((*part.driven_by, *part.needs, *part.writes)) == sorted(ENDS[stage])


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
    before = {stage: rings.gauges.snapshot().positions(stage) for stage in PARTS}
    rings.put("logits")
    moved = {stage for stage in PARTS if rings.gauges.snapshot().positions(stage) != before[stage]}
    assert moved == {"inference"}
    rings.take("logits")
    moved = {stage for stage in PARTS if rings.gauges.snapshot().positions(stage) != before[stage]}
    assert moved == {"inference", "sampling"}


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
