"""A broadcast ring one of whose readers is killed at a random moment, again and again. Where the dead are evicted the
others get every message. Where a death ends the ring, all see it end with the same one, and for good, and nobody went
beyond what the dead reader could still have read."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from multiprocessing.connection import Connection

import numpy as np

from ipc import OnDeath, PeerDied, RingClosed, RingHandle, RingSnapshot, SlotConsumer, SlotProducer, SlotRing
from scripts.lab.workers import worker
from scripts.verify.stress.options import WAIT_S, Options, Pace
from scripts.verify.stress.slots import SLOT_SIZE, Content

VICTIM = 1
READERS = 3


class StressError(Exception):
    """A death was not seen as it should have been."""


def stress_round(options: Options, number: int) -> tuple[int, RingSnapshot]:
    """How many messages there were, and the ring in the end. Raises StressError."""
    with contextlib.ExitStack() as stack:
        ring = stack.enter_context(_make_ring(options))
        pipes = [stack.enter_context(worker(read, options, ring.handle, i)) for i in range(READERS)]
        victim: int = pipes[VICTIM].recv()
        producer = stack.enter_context(ring.producer(label="producer", spin_us=options.spin_us))
        ring.unlink_when_attached(WAIT_S)
        after_s = random.Random(options.seed * 1000 + number).random() * 0.2  # noqa: S311 - a repeatable run
        timer = threading.Timer(after_s, os.kill, (victim, signal.SIGKILL))
        timer.start()
        sent = _produce(producer, ring, options, victim, number)
        timer.join()
        seen = [_count(pipe) for i, pipe in enumerate(pipes) if i != VICTIM]
        check(ring.snapshot(), options, sent, seen)
        return sent, ring.snapshot()


def _make_ring(options: Options) -> SlotRing:
    rule: OnDeath = "end" if options.kind == "end" else "evict"
    return SlotRing.create("stress", slots=options.slots, slot_size=SLOT_SIZE, consumers=READERS, on_death=rule)


def _produce(producer: SlotProducer, ring: SlotRing, options: Options, victim: int, number: int) -> int:
    """Messages until the death is noticed; where the dead are evicted, some more."""
    content, sent, last = Content(options.slots), 0, None
    pace = Pace(options.seed * 100 + number, options.slots * 3 // 4)
    try:
        while last is None or sent < last:
            with producer.reserve_batch(pace.batch(options.slots), WAIT_S) as run:
                content.write(sent, np.frombuffer(memoryview(run), np.uint64))
                sent += run.count
            if last is None and ring.snapshot().evicted:
                last = sent + 10 * options.slots
    except PeerDied as error:
        if options.kind != "end" or error.pid != victim:
            raise StressError(f"the producer was told of another death than {victim}'s: {error}") from error
        _expect_the_same(producer, victim)
        return sent
    if options.kind == "end":
        raise StressError("the producer was not told of the death")
    producer.close()
    return sent


def _expect_the_same(producer: SlotProducer, victim: int) -> None:
    """However often one asks."""
    try:
        producer.try_reserve()
    except PeerDied as error:
        if error.pid == victim:
            return
    raise StressError("the producer was told of the death, and then could go on")


def _count(pipe: Connection) -> int:
    """Messages of a reader that lives. Raises StressError."""
    try:
        count: int = pipe.recv()
    except EOFError:
        raise StressError("a reader failed; why is on stderr") from None
    return count


def check(ring: RingSnapshot, options: Options, sent: int, seen: list[int]) -> None:
    if any(count != sent for count in seen):
        raise StressError(f"{sent} messages were sent, the readers saw {seen}")
    if ring.evicted != (VICTIM,):
        raise StressError(f"reader {VICTIM} was killed, the producer noticed the death of {ring.evicted}")
    if options.kind == "end" and sent > ring.consumers[VICTIM].index + options.slots:
        raise StressError(f"message {sent} was sent, but the dead reader stopped at {ring.consumers[VICTIM].index}")


def read(options: Options, handle: RingHandle, number: int, pipe: Connection) -> None:
    """A reader: tells its pid if it is to be killed, else how many messages it saw, every byte of them right."""
    pipe.send("ready")
    consumer = SlotRing.from_handle(handle).consumer(number, label=f"reader {number}", spin_us=options.spin_us)
    if number == VICTIM:
        pipe.send(os.getpid())
    pipe.send(_read_all(consumer, options, Pace(options.seed * 100 + 50 + number, options.slots * 3 // 4)))
    consumer.close()


def _read_all(consumer: SlotConsumer, options: Options, pace: Pace) -> int:
    content, seen = Content(options.slots), 0
    expected: type[Exception] = PeerDied if options.kind == "end" else RingClosed
    with contextlib.suppress(expected):
        while True:
            with consumer.read_batch(pace.batch(options.slots), WAIT_S) as run:
                content.check(seen, np.frombuffer(memoryview(run), np.uint64))
                seen += run.count
    return seen


def stress_deaths(options: Options, rounds: int) -> bool:
    """Prints how it went. True: as it should."""
    messages = lost = 0
    for number in range(rounds):
        try:
            sent, ring = stress_round(options, number)
        except StressError as error:
            print(f"{options.kind}: FAILED in round {number + 1}: {error}", flush=True)
            return False
        messages += sent
        lost += sum(side.counters["lost_wakes"] for side in (ring.producer, *ring.consumers))
    verdict = "FAILED" if lost else "ok"
    counts = f"{rounds} deaths, {messages:,} messages, every byte checked, {lost} lost"
    print(f"{options.kind}: {verdict}, {counts}", flush=True)
    return not lost
