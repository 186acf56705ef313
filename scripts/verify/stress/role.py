"""One process of a stress run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from ipc import ByteRing, RingClosed, RingHandle, SlotRing
from scripts.verify.stress import records, slots
from scripts.verify.stress.options import WAIT_S, Options, Pace


@dataclass(frozen=True, slots=True)
class Played:
    seconds: float
    sleeps: int


def play(options: Options, handle: RingHandle, number: int, pipe: Connection) -> None:
    """As the producer, or from 1 on as a consumer. Any error is a traceback on stderr, and no answer."""
    pipe.send("ready")
    is_bytes = options.kind == "byte"
    ring: Any = (ByteRing if is_bytes else SlotRing).from_handle(handle)
    side: Any = records if is_bytes else slots
    label, pace = options.roles[number], Pace(options.seed * 100 + number - 1, options.slots * 3 // 4)
    if number == 0:
        end = ring.producer(label=label, spin_us=options.spin_us)
        ring.wait_attached(WAIT_S)
    else:
        end = ring.consumer(number - 1, label=label, spin_us=options.spin_us)
    start = time.perf_counter()
    (side.consume if number else side.produce)(end, options, pace)
    seconds = time.perf_counter() - start
    if number:
        _expect_end(end)
    pipe.send(Played(seconds, pace.sleeps))
    end.close()


def _expect_end(consumer: Any) -> None:
    """After the last message comes the producer's close, and nothing else."""
    try:
        consumer.read(WAIT_S)
    except RingClosed:
        return
    raise ValueError("there was one message more than were sent")
