"""What a broadcast ring costs its producer, by how many readers it has: one `publish` while all of them are busy with
something else, and one that wakes all of them from their sleep in the ring."""

from __future__ import annotations

import os
import statistics
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Any

from ipc import RingHandle, SlotProducer, SlotRing
from scripts.lab.workers import answer_each, worker

Row = dict[str, Any]

READERS = (1, 2, 4, 8)
SLOTS, SLOT_SIZE = 1024, 64
WAIT_S = 60.0


def measure_broadcast(laps: int, wakes: int, *, pinned: bool) -> list[Row]:
    """A row per number of readers: medians, in microseconds, over `laps` of the ring that wake nobody and over
    `wakes` that wake every reader. Pinned: the producer has the first CPU, the readers share the others."""
    before = os.sched_getaffinity(0)
    try:
        return [{"readers": n, "pinned": pinned, **_measure(n, laps, wakes, pinned)} for n in READERS]
    finally:
        os.sched_setaffinity(0, before)


def _measure(readers: int, laps: int, wakes: int, pinned: bool) -> Row:
    with ExitStack() as stack:
        ring = stack.enter_context(SlotRing.create("broadcast", slots=SLOTS, slot_size=SLOT_SIZE, consumers=readers))
        producer = stack.enter_context(ring.producer())
        first, *others = sorted(os.sched_getaffinity(0))
        cpus = others if pinned else [first, *others]
        pipes = [stack.enter_context(worker(read, ring.handle, i, cpus)) for i in range(readers)]
        ring.unlink_when_attached(WAIT_S)
        if pinned:
            os.sched_setaffinity(0, {first})  # not before: the readers would inherit it
        _awake(producer, pipes)  # every slot once: pages, caches
        awake = [ns for _ in range(laps) for ns in _awake(producer, pipes)]
        parked = _parked(ring, producer, pipes, wakes)
        os.sched_setaffinity(0, {first, *others})
    return {"awake_us": statistics.median(awake) / 1000, "parked_us": statistics.median(parked) / 1000}


def _awake(producer: SlotProducer, pipes: list[Connection]) -> list[int]:
    """While the readers wait for a word in their pipes; then they read it all."""
    times = [_publish_ns(producer) for _ in range(SLOTS)]
    _tell(pipes, SLOTS)
    _await(pipes)
    return times


def _parked(ring: SlotRing, producer: SlotProducer, pipes: list[Connection], count: int) -> list[int]:
    times = []
    _tell(pipes, count)
    for _ in range(count):
        while not all(side.waiting for side in ring.snapshot().consumers):
            time.sleep(1e-4)
        time.sleep(1e-4)  # from the word that it will sleep to its sleep
        times.append(_publish_ns(producer))
    _await(pipes)
    return times


def _publish_ns(producer: SlotProducer) -> int:
    slot = producer.reserve(WAIT_S)
    start = time.perf_counter_ns()
    slot.publish()
    return time.perf_counter_ns() - start


def _tell(pipes: list[Connection], count: int) -> None:
    for pipe in pipes:
        pipe.send(count)


def _await(pipes: list[Connection]) -> None:
    for pipe in pipes:
        pipe.recv()


def read(handle: RingHandle, number: int, cpus: list[int], pipe: Connection) -> None:
    """A reader that never spins: told a number of messages, it reads them and says so."""
    os.sched_setaffinity(0, cpus)
    consumer = SlotRing.from_handle(handle).consumer(number, spin_us=0)

    def answer(count: int) -> None:
        for _ in range(count):
            consumer.read(WAIT_S).release()
        pipe.send(None)

    answer_each(pipe, answer)
