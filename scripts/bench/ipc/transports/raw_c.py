"""The raw limit: the same ping-pong in C, one word each way, nothing of Python between two messages."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import ClassVar

import numpy as np

from ipc import _core
from scripts.bench.ipc.transports.base import WAIT_S, Access, Channel, Fill, Job, Touch, Transport


class _Raw(Transport):
    """One job per pair: the two words must be zero when a job begins."""

    parks: ClassVar[bool]

    def prepare(self) -> Path:
        fd = os.memfd_create("ipc_bench_raw")
        os.ftruncate(fd, mmap.PAGESIZE)
        self.map = mmap.mmap(fd, mmap.PAGESIZE)
        return Path(f"/proc/{os.getpid()}/fd/{fd}")

    def attach(self, ticket: Path) -> None:
        with ticket.open("r+b") as memory:
            self.map = mmap.mmap(memory.fileno(), mmap.PAGESIZE)

    def channel(self, access: Access, fill: Fill, touch: Touch, batch: int) -> Channel:
        return Channel(lambda: None, lambda: touch(self.payload))

    def wait(self, seconds: float) -> None:
        raise NotImplementedError("the raw limit is not measured idle")

    def greet(self, channel: Channel, *, leads: bool) -> None:
        pass

    def round_trips_ns(self, channel: Channel, job: Job) -> list[int]:
        times = self._run(job, lead=True)
        return [int(ns) for ns in np.frombuffer(times, np.int64)]

    def answer(self, channel: Channel, job: Job) -> None:
        self._run(job, lead=False)

    def _run(self, job: Job, *, lead: bool) -> bytes:
        pause_us = job.pause_us if lead else 0.0
        return _core.raw_ping_pong(self.map, job.count, lead=lead, park=self.parks, pause_us=pause_us, timeout=WAIT_S)


class RawSpin(_Raw):
    name = "raw-spin"
    title = "raw C, spinning"
    parks = False


class RawFutex(_Raw):
    name = "raw-futex"
    title = "raw C, futex"
    cost = 8
    parks = True
