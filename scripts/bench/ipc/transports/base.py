"""What a pair of processes is to do, the messages that it sends, and what a transport has to bring to be measured."""

from __future__ import annotations

import json
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np

# ---- what is to be done: passed to both processes as one argument -------------------------------------------------


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


# ---- messages: every byte is written and read, the same way for every transport -----------------------------------


Buffer = Any
Fill = Callable[[Buffer], object]
Touch = Callable[[Buffer], object]

WORD = 0x0102030405060708
_SMALL = 512
"""numpy needs about 1.5 µs for a sum of eight words, so small messages go through `struct`, which reads 64 bytes in
0.1 µs; from 4 KiB on numpy's sum over a uint64 view is far faster."""


def make_fill(size: int) -> Fill:
    """A function that writes `size` bytes, a multiple of 8, into a buffer."""
    if size > _SMALL:
        return lambda buffer: np.frombuffer(buffer, np.uint64).fill(WORD)
    words = size // 8
    pack, values = struct.Struct(f"{words}Q").pack_into, (WORD,) * words
    return lambda buffer: pack(buffer, 0, *values)


def make_touch(size: int) -> Touch:
    """A function that reads all of a buffer of `size` bytes and returns something that depends on each."""
    if size > _SMALL:
        return lambda buffer: int(np.frombuffer(buffer, np.uint64).sum())
    return struct.Struct(f"{size // 8}Q").unpack_from


def touch_run(buffer: Buffer) -> int:
    """Reads a run of messages that lie side by side."""
    return int(np.frombuffer(buffer, np.uint64).sum())


def fill_run(buffer: Buffer) -> None:
    """Writes a run of messages that lie side by side."""
    np.frombuffer(buffer, np.uint64).fill(WORD)


WAIT_S = 60.0
"""How long a side waits for the other before it gives up, where the transport lets us say so."""


@dataclass(frozen=True, slots=True)
class Channel:
    """Messages of one size, both ways. `receive` reads every byte and returns what `touch` said. The runs move
    `n` messages in batches, where the transport has a call for that."""

    send: Callable[[], object]
    receive: Callable[[], object]
    send_run: Callable[[int], None] | None = None
    receive_run: Callable[[int], None] | None = None


def send_in_batches(send: Callable[[], object], batch: int) -> Callable[[int], None]:
    """`send` sends `batch` messages."""

    def run(count: int) -> None:
        for _ in range(count // batch):
            send()

    return run


def receive_in_batches(receive: Callable[[], Sequence[Buffer]], touch: Touch) -> Callable[[int], None]:
    """`receive` gives what there is."""

    def run(count: int) -> None:
        while count:
            got = receive()
            for message in got:
                touch(message)
            count -= len(got)

    return run


class Transport(ABC):
    """Both ends of a two-way link. The leader calls prepare and, when it has started the follower, connect; the
    follower attach."""

    name: ClassVar[str]
    title: ClassVar[str]
    package: ClassVar[str | None] = None
    accesses: ClassVar[tuple[Access, ...]] = ("copy",)
    batched: ClassVar[tuple[Access, ...]] = ()
    cost: ClassVar[int] = 1
    """Roughly how many times a ring's latency; slow transports get fewer messages."""

    def __init__(self, spec: PairSpec) -> None:
        self.spec = spec
        self.size = spec.size_bytes
        self.payload = bytearray(spec.size_bytes)
        make_fill(self.size)(self.payload)

    @abstractmethod
    def prepare(self) -> Any:
        """Leader: make what the follower will attach to; what it gives is pickled for the follower. Raises
        ImportError where the package is missing."""

    @abstractmethod
    def attach(self, ticket: Any) -> None:
        """Follower: attach to what the leader made."""

    @abstractmethod
    def channel(self, access: Access, fill: Fill, touch: Touch, batch: int) -> Channel: ...

    @abstractmethod
    def wait(self, seconds: float) -> None:
        """Wait for a message that does not come."""

    def connect(self) -> None:  # noqa: B027 - nothing to do for most
        """Leader: after the follower was started."""

    def close(self) -> None:  # noqa: B027
        """Leader, at the end: what a dying process would leave behind."""

    # The raw limit in C replaces the following two; everything else is driven from Python.

    def greet(self, channel: Channel, *, leads: bool) -> None:
        """The follower's first message says that it is there."""
        (channel.receive if leads else channel.send)()

    def round_trips_ns(self, channel: Channel, job: Job) -> list[int]:
        send, receive, clock, pause = channel.send, channel.receive, time.perf_counter_ns, job.pause_us / 1e6
        times = []
        for _ in range(job.count):
            if pause:
                time.sleep(pause)
            start = clock()
            send()
            receive()
            times.append(clock() - start)
        return times

    def answer(self, channel: Channel, job: Job) -> None:
        send, receive = channel.send, channel.receive
        for _ in range(job.count):
            receive()
            send()
