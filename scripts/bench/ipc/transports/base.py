"""What a transport has to bring to be measured."""

from __future__ import annotations

import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from scripts.bench.ipc.payload import Buffer, Fill, Touch, make_payload
from scripts.bench.ipc.spec import Access, Job, PairSpec

WAIT_S = 60.0
"""How long a side waits for the other before it gives up, where the transport lets us say so."""


class Follower(Protocol):
    @property
    def pid(self) -> int | None: ...


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
    """Both ends of a two-way link. The leader calls prepare, start, connect; the follower attach."""

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
        self.payload = make_payload(spec.size_bytes)

    @abstractmethod
    def prepare(self) -> None:
        """Leader: make what the follower will attach to. Raises ImportError where the package is missing."""

    @abstractmethod
    def attach(self, ticket: Any) -> None:
        """Follower: attach to what the leader made. A text; queues come as they are."""

    @abstractmethod
    def channel(self, access: Access, fill: Fill, touch: Touch, batch: int) -> Channel: ...

    @abstractmethod
    def wait(self, seconds: float) -> None:
        """Wait for a message that does not come."""

    def connect(self) -> None:  # noqa: B027 - nothing to do for most
        """Leader: after the follower was started."""

    def close(self) -> None:  # noqa: B027
        """Leader, at the end: what a dying process would leave behind."""

    def ticket(self) -> str:
        return ""

    def fds(self) -> tuple[int, ...]:
        return ()

    def start(self) -> Follower:
        """A plain new process; descriptors are passed on, nothing is forked."""
        command = [sys.executable, "-m", "scripts.bench.ipc.pair", self.spec.to_text(), self.ticket()]
        return subprocess.Popen(command, pass_fds=self.fds())

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
