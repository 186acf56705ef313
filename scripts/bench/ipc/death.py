"""How soon a process that sleeps in a ring learns that the other side was killed."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from typing import Any

import ipc

_VICTIM = """
import sys, time, ipc
end = ipc.SlotRing.from_handle(ipc.RingHandle.from_text(sys.argv[1])).producer(label="victim")
print("ready", flush=True)
time.sleep(60)
"""


def measure_deaths(rounds: int) -> dict[str, Any]:
    """Milliseconds from `kill -9` to PeerDied in a reader that waits. The kill comes at any point of a slice."""
    delays = [_one_death(0.05 + 0.013 * i) for i in range(rounds)]
    return {"rounds": rounds, "p50_ms": statistics.median(delays), "max_ms": max(delays)}


def _one_death(after_s: float) -> float:
    with ipc.SlotRing.create("death", slots=2, slot_size=64) as ring:
        command = [sys.executable, "-c", _VICTIM, ring.handle.to_text()]
        with subprocess.Popen(command, pass_fds=ring.handle.fds, stdout=subprocess.PIPE) as victim:
            assert victim.stdout is not None
            victim.stdout.readline()
            killed: list[float] = []

            def kill() -> None:
                killed.append(time.perf_counter())
                os.kill(victim.pid, signal.SIGKILL)

            timer = threading.Timer(after_s, kill)
            timer.start()
            with ring.consumer() as consumer:
                try:
                    consumer.read(timeout=30)
                except ipc.PeerDied:
                    return (time.perf_counter() - killed[0]) * 1e3
    raise RuntimeError("the victim's death was never noticed")
