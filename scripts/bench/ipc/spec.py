"""What a pair of processes is to do: passed to both as one argument."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal, Self

Access = Literal["in-place", "copy"]
Mode = Literal["busy", "parked", "cadence", "stream", "stream-batched", "parts", "idle"]


@dataclass(frozen=True, slots=True)
class Job:
    """`count` messages in one mode. busy, parked, cadence: ping-pong, one-way time is half of a round trip.
    stream: one way, one reply at the end. parts: ping-pong with the filling and touching timed apart. idle: no
    message for `seconds`."""

    mode: Mode
    access: Access = "copy"
    count: int = 0
    batch: int = 1
    pause_us: float = 0
    seconds: float = 0


@dataclass(frozen=True, slots=True)
class PairSpec:
    """`sleeps`: the jobs leave pauses, so a transport that can either spin or sleep has to sleep. `spin_us` is
    for rings; None is their default."""

    transport: str
    size_bytes: int
    pinned: bool
    jobs: tuple[Job, ...]
    sleeps: bool = False
    spin_us: float | None = None

    def to_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Self:
        fields = json.loads(text)
        return cls(**{**fields, "jobs": tuple(Job(**job) for job in fields["jobs"])})
