"""What a broadcast ring costs its producer, by how many readers it has: processes that sleep elsewhere while it
publishes, so that none is parked in the ring, and processes that are all parked in it."""

from __future__ import annotations

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


def measure_broadcast(messages: int, wakes: int) -> list[Row]:
    """A row per number of readers; medians in microseconds of one `publish`, over `messages` that wake nobody, and
    over `wakes` that wake every reader."""
    return [_measure(readers, messages, wakes) for readers in READERS]


def _measure(readers: int, messages: int, wakes: int) -> Row:
    with (
        SlotRing.create("broadcast", slots=SLOTS, slot_size=SLOT_SIZE, consumers=readers) as ring,
        ExitStack() as stack,
    ):
        producer = stack.enter_context(ring.producer())
        pipes = [stack.enter_context(worker(read, ring.handle, i)) for i in range(readers)]
        ring.unlink_when_attached(WAIT_S)
        _awake(producer, pipes, SLOTS)  # every slot once: pages, caches
        awake = [ns for _ in range(0, messages, SLOTS) for ns in _awake(producer, pipes, SLOTS)]
        parked = _parked(ring, producer, pipes, wakes)
    return {"readers": readers, "awake_us": _p50_us(awake), "parked_us": _p50_us(parked)}


def _awake(producer: SlotProducer, pipes: list[Connection], count: int) -> list[int]:
    """While the readers wait for a word in their pipes; then they read it all."""
    times = [_publish_ns(producer) for _ in range(count)]
    _all_read(pipes, count)
    return times


def _parked(ring: SlotRing, producer: SlotProducer, pipes: list[Connection], count: int) -> list[int]:
    for pipe in pipes:
        pipe.send(count)
    times = []
    for _ in range(count):
        while not all(side.waiting for side in ring.snapshot().consumers):
            time.sleep(1e-4)
        time.sleep(1e-4)  # from the word that it will sleep to its sleep
        times.append(_publish_ns(producer))
    for pipe in pipes:
        pipe.recv()
    return times


def _publish_ns(producer: SlotProducer) -> int:
    slot = producer.reserve(WAIT_S)
    start = time.perf_counter_ns()
    slot.publish()
    return time.perf_counter_ns() - start


def _all_read(pipes: list[Connection], count: int) -> None:
    for pipe in pipes:
        pipe.send(count)
    for pipe in pipes:
        pipe.recv()


def _p50_us(times_ns: list[int]) -> float:
    return statistics.median(times_ns) / 1000


def read(handle: RingHandle, number: int, pipe: Connection) -> None:
    """A reader that never spins: told a number of messages, it reads them and says so."""
    consumer = SlotRing.from_handle(handle).consumer(number, spin_us=0)

    def answer(count: int) -> None:
        for _ in range(count):
            consumer.read(WAIT_S).release()
        pipe.send(None)

    answer_each(pipe, answer)
