"""Generations: the sets of rings that stages use, one after the other, and a stage's side of the handover.

Each replica has its own. When one of its stages dies or hangs the launcher revokes its rings, restarts that stage,
and hands new rings to all that use them as soon as all wait for them. A stage therefore loads what is expensive once,
and then serves generation after generation: it reports that it waits, gets rings, attaches, reports that it is ready,
works until they close, detaches, and waits again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import ipc
from pipeline.runtime.control_channel import Channel, ChannelError, Message
from pipeline.runtime.readable import readable

END = signal.SIGUSR1
"""The launcher's signal to stop a stage. Signals that reach all processes of a server at once (SIGINT and SIGHUP from
a terminal, SIGTERM from systemd) are for the launcher, which decides what the stages do."""

CRASHED = "crash"  # by itself: a fault, an abort, or an exit with an error
KILLED = "killed"  # by a signal from outside
HUNG = "hung"  # it had work, ran, and made no progress; then it was killed
STOPPED = "stopped"  # it had work and was not running (SIGSTOP); then it was killed

BY_ITSELF = (CRASHED, HUNG)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a stage ended, and with it the generation."""

    stage: str
    how: str  # CRASHED, KILLED, HUNG or STOPPED
    generation: int
    in_hand: tuple[int, ...] = ()  # requests that it was working on, where it publishes them (preprocess)


def culprit(ended: Iterable[Ended], generation: int, *stages: str) -> str | None:
    """The first of these stages that failed by itself in that generation, not by a signal from outside."""
    return next((one.stage for one in _failed(ended, generation) if one.stage in stages), None)


def blamed(ended: Iterable[Ended], generation: int, stage: str) -> tuple[int, ...]:
    """Requests, one of which made this stage fail by itself in that generation."""
    return next((one.in_hand for one in _failed(ended, generation) if one.stage == stage), ())


def _failed(ended: Iterable[Ended], generation: int) -> Iterator[Ended]:
    return (one for one in ended if one.generation == generation and one.how in BY_ITSELF)


AWAY_S = 30.0
"""A replica, or a node, that is not back then is not waited for by those that may go on elsewhere."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who may be to blame for the end of a replica's generation. Fronts of several replicas are told, before anything
    that was there goes on elsewhere."""

    replica: int
    generation: int
    culprit: str = ""  # the stage that failed by itself; empty: none did, and nobody is to blame
    suspects: tuple[int, ...] | None = ()  # requests; None: those that had a row, and nobody knows which

    def to_fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        named = fields["suspects"]
        return cls(
            fields["replica"], fields["generation"], fields["culprit"], None if named is None else tuple(named)
        )


@dataclass(frozen=True, slots=True)
class Generation:
    """One set of a replica's rings, by their keys, as a stage gets it. The receiver owns the handles' descriptors.

    `ended` is about the generations before: how stages died in the last one that was complete, and in those after it
    that never were. The same death may therefore be listed twice; its generation's number identifies it. `weights`:
    the id of those with which every token of this generation is computed. `on_trial`: they are new, and fronts send
    no requests before the launcher says that they are proven.
    """

    number: int
    handles: Mapping[str, ipc.RingHandle]
    ended: tuple[Ended, ...] = ()
    replica: int = 0
    weights: str = ""
    on_trial: bool = False

    def to_message(self) -> tuple[dict[str, Any], tuple[int, ...]]:
        """Fields and descriptors; rings refer to descriptors by index."""
        fds: list[int] = []
        rings = {}
        for name, handle in self.handles.items():
            rings[name] = [len(fds), len(handle.fds)]
            fds += handle.fds
        ended = [[one.stage, one.how, one.generation, one.in_hand] for one in self.ended]
        about = {"number": self.number, "replica": self.replica, "weights": self.weights, "on_trial": self.on_trial}
        return {**about, "rings": rings, "ended": ended}, tuple(fds)

    @classmethod
    def from_message(cls, message: Message) -> Self:
        handles = {
            name: handle_of(message.fds[first : first + count])
            for name, (first, count) in message.fields["rings"].items()
        }
        ended = (
            Ended(stage, how, died_in, tuple(in_hand)) for stage, how, died_in, in_hand in message.fields["ended"]
        )
        fields = message.fields
        about = fields["replica"], fields["weights"], fields["on_trial"]
        return cls(fields["number"], handles, tuple(ended), *about)


def handle_of(fds: Sequence[int]) -> ipc.RingHandle:
    """As `RingHandle.fds` has them."""
    segment, space, *data = fds
    return ipc.RingHandle(segment, space, tuple(data))


class Control:
    """A stage's side of its control channel.

    Messages other than generations are handled as they come: handlers are called between two instructions of the main
    thread, after `watch`, or from an event loop that calls `take` when the channel is readable.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._handlers: dict[str, Callable[[Mapping[str, Any]], None]] = {}
        self._generations: defaultdict[int, deque[Message]] = defaultdict(deque)  # by replica
        self._asleep = False  # in `next_generation`, which receives messages itself

    def fileno(self) -> int:
        return self._channel.fileno()

    # ---- to the launcher ------------------------------------------------------------------------------------

    def progress(self, what: str, done: int, total: int) -> None:
        self._channel.send("progress", what=what, done=done, total=total)

    def waiting(self, replica: int = 0, aboard: Collection[int] | None = ()) -> None:
        """This stage has loaded what it needs, has no rings of this replica, and needs some. `aboard`: requests that
        had a row when it lost its last rings, where it knows; None: too many to say."""
        self._channel.send("waiting", replica=replica, aboard=None if aboard is None else [*aboard])

    def ready(self, generation: Generation) -> None:
        """This stage serves in this generation."""
        self._channel.send("ready", number=generation.number, replica=generation.replica)

    def linked(self, lanes: int) -> None:
        """This stage, a router's front, runs, and has so many replicas of its nodes."""
        self._channel.send("linked", lanes=lanes)

    def nodes(self, nodes: Sequence[str]) -> None:
        """This stage, a router's front, has these nodes from now on; the next front is to have them, too."""
        self._channel.send("nodes", nodes=[*nodes])

    def failed(self, why: str) -> None:
        self._channel.send("failed", why=why)

    def change_weights(self, folder: str, call: int) -> None:
        """This stage, a front, asks for other weights; the report that has this call in it is the answer."""
        self._channel.send("weights", folder=folder, call=call)

    def answered(self, replica: int, generation: int, why: str) -> None:
        """This replica has answered what it was asked, or why it has not."""
        self._channel.send("answered", replica=replica, generation=generation, why=why)

    # ---- from the launcher ----------------------------------------------------------------------------------

    def on(self, event: str, handler: Callable[[Mapping[str, Any]], None]) -> None:
        self._handlers[event] = handler

    def watch(self) -> None:
        """Have messages handled as soon as they come, by a signal (SIGIO): the stage may be deep in a wait."""
        signal.signal(signal.SIGIO, self._on_signal)
        signal.siginterrupt(signal.SIGIO, False)  # libraries' system calls must not fail with EINTR
        fcntl.fcntl(self.fileno(), fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(self.fileno(), fcntl.F_GETFL)
        fcntl.fcntl(self.fileno(), fcntl.F_SETFL, flags | os.O_ASYNC)
        self.take()

    def _on_signal(self, *_: object) -> None:
        if not self._asleep:
            with contextlib.suppress(ChannelError):  # that the launcher is gone is reported where it matters
                self.take()

    def take(self) -> None:
        """Handle messages that have arrived; generations are kept. Raises ChannelError when the launcher is gone."""
        while (message := self._channel.receive()) is not None:
            if message.event == "generation":
                self._generations[message.fields["replica"]].append(message)
            elif message.event in self._handlers:
                self._handlers[message.event](message.fields)

    def newest(self, replica: int = 0) -> Generation | None:
        """The replica's last generation that was announced and not yet taken; those before it are over."""
        announced = self._generations[replica]
        while len(announced) > 1:
            announced.popleft().close()
        return Generation.from_message(announced.popleft()) if announced else None

    def next_generation(self, replica: int = 0) -> Generation:
        """Wait for the replica's next one. Raises ChannelError when the launcher is gone."""
        self._asleep = True
        try:
            self.take()
            while not self._generations[replica]:
                readable([self.fileno()])
                self.take()
        finally:
            self._asleep = False
        self.take()  # messages that arrived while the signal handler ignored them
        generation = self.newest(replica)
        assert generation is not None
        return generation
