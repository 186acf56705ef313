"""One process of a stress run: `python -m scripts.verify.stress.role OPTIONS HANDLE ROLE`; ROLE is "producer" or a
consumer's number. Prints what it did as JSON; any error is a traceback and exit status 1."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from ipc import ByteRing, RingClosed, RingHandle, SlotRing
from scripts.verify.stress import records, slots
from scripts.verify.stress.options import WAIT_S, Options, Pace


def play(options: Options, handle: RingHandle, role: str) -> dict[str, Any]:
    is_bytes = options.kind == "byte"
    ring: Any = (ByteRing if is_bytes else SlotRing).from_handle(handle)
    side: Any = records if is_bytes else slots
    number = -1 if role == "producer" else int(role)
    pace = Pace(options.seed * 100 + number, options.slots * 3 // 4)
    if role == "producer":
        end = ring.producer(label=role, spin_us=options.spin_us)
        ring.wait_attached(WAIT_S)
    else:
        end = ring.consumer(number, label=f"consumer {role}", spin_us=options.spin_us)
    start = time.perf_counter()
    (side.produce if role == "producer" else side.consume)(end, options, pace)
    seconds = time.perf_counter() - start
    if role != "producer":
        _expect_end(end)
    answer = {"role": role, "seconds": seconds, "sleeps": pace.sleeps, "lost_wakes": end.lost_wakes}
    end.close()
    return answer


def _expect_end(consumer: Any) -> None:
    """After the last message comes the producer's close, and nothing else."""
    try:
        consumer.read(WAIT_S)
    except RingClosed:
        return
    raise ValueError("there was one message more than were sent")


if __name__ == "__main__":
    print(json.dumps(play(Options.from_text(sys.argv[1]), RingHandle.from_text(sys.argv[2]), sys.argv[3])))
