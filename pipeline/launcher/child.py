"""A stage's process, as the launcher sees it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Self

from pipeline.host.npu_errors import explain
from pipeline.launcher.api_keys import without_keys
from pipeline.launcher.readiness import NOTIFY_SOCKET
from pipeline.runtime.control_channel import Channel, ChannelError, Message
from pipeline.runtime.generations import CRASHED, KILLED
from pipeline.runtime.nonblocking_stderr import STDERR, write_stderr
from pipeline.runtime.readable import readable
from pipeline.wire.topology import StageSpec

WITH_OTHERS = "with others"  # another rank of its replica died, and none can go on without it
REPLACED = "replaced"  # by one with other weights

_BAR = 24  # characters of a progress bar

_FAULTS = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS}


class Phase(Enum):
    """What a process is doing; the values are for the log."""

    LOADING = "loading"
    WAITING = "waiting for rings"
    ATTACHING = "attaching to its rings"
    SERVING = "serving"
    LEAVING = "detaching from its rings"


@dataclass(slots=True)
class Attachment:
    """Of a process to the rings of one replica."""

    phase: Phase = Phase.LOADING
    generation: int = 0  # the last one it was given


class Child:
    """Started, supervised through its pidfd and its channel, stopped. Nothing here blocks but `wait`. A front has
    `attachments` to the rings of all replicas."""

    def __init__(
        self, spec: StageSpec, replicas: Sequence[int], process: subprocess.Popen[bytes], channel: Channel
    ) -> None:
        self.spec, self.name = spec, spec.key
        self.attachments = {replica: Attachment() for replica in replicas}
        self.began = time.monotonic()
        self.heard = 0  # messages received
        self.why = ""  # why it failed, as it reported
        self.linked = False  # a router's front, which has no rings, runs
        self.ended_as: str | None = None  # HUNG, STOPPED, WITH_OTHERS or REPLACED, when the launcher killed it
        self.channel: Channel | None = channel  # None: closed
        self.pidfd = os.pidfd_open(process.pid)
        self._process = process
        self._shown = ""

    @classmethod
    def start(
        cls,
        spec: StageSpec,
        replicas: Sequence[int],
        command: Sequence[str],
        specification_fd: int,
        fds: Sequence[int],
        channel: Channel,
    ) -> Self:
        """`command` is given the descriptor as its last word. Raises OSError when no process can be made."""
        return cls(spec, replicas, start_process(command, specification_fd, fds), channel)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def title(self) -> str:
        return f"{self.name} (pid {self.pid})"

    @property
    def loading(self) -> bool:
        """It has not asked for rings yet."""
        return not self.linked and all(attachment.phase is Phase.LOADING for attachment in self.attachments.values())

    @property
    def dead(self) -> bool:
        return bool(readable([self.pidfd], 0))

    # ---- messages -------------------------------------------------------------------------------------------

    def send(self, event: str, fds: Sequence[int] = (), **fields: object) -> None:
        """Raises ChannelError for a stage that does not receive messages any more."""
        if self.channel is None:
            raise ChannelError(f"{self.title} has closed its control channel")
        self.channel.send(event, fds, **fields)

    def messages(self) -> Iterator[Message]:
        """Messages that have arrived. Afterwards `channel` may be None."""
        while self.channel is not None:
            try:
                message = self.channel.receive()
            except ChannelError:
                self.close_channel()
                return
            if message is None:
                return
            self.heard += 1
            yield message

    def close_channel(self) -> None:
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def show(self, what: str, done: int, total: int) -> None:
        """Progress: a bar that is redrawn on a terminal; elsewhere a line when the work changes."""
        title, count = f"ringserve: {self.name}: {what}", f"{done} of {total}"
        if os.isatty(STDERR):
            filled = _BAR * done // total
            bar = "#" * filled + "." * (_BAR - filled)
            write_stderr(f"\r\033[K{title} [{bar}] {count}" + ("\n" if done == total else ""))
        elif what != self._shown:
            write_stderr(f"{title} {count}\n")
        self._shown = what

    # ---- ending ---------------------------------------------------------------------------------------------

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)  # no effect on a process that was reaped

    def wait(self, deadline: float) -> None:
        """Until the deadline, then kill it."""
        try:
            self._process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def reap(self) -> int:
        """The exit status of a dead process, whose descriptors are closed."""
        status = self._process.wait()
        self.close_channel()
        os.close(self.pidfd)
        return status

    def how(self, status: int) -> str:
        """CRASHED, KILLED, HUNG, STOPPED or REPLACED."""
        if self.ended_as is not None:
            return self.ended_as
        return KILLED if status == 0 or (status < 0 and -status not in _FAULTS) else CRASHED

    def describe(self, status: int) -> str:
        """How it ended, for the log."""
        if self.ended_as == WITH_OTHERS:
            return "was ended, because its replica has lost another rank"
        if self.ended_as == REPLACED:
            return "was ended, to load other weights"
        if self.ended_as is not None:
            return "was killed because it hung"
        if status < 0:
            return f"was killed by {_signal_name(-status)}"
        return f"exited with status {status}" + (f": {in_plain_words(self.why)}" if self.why else "")


def start_process(
    command: Sequence[str], specification_fd: int, fds: Sequence[int] = (), *, stdout: int | None = None
) -> subprocess.Popen[bytes]:
    """`command` is given the descriptor as its last word. Raises OSError when no process can be made."""
    environment = without_keys(os.environ)
    environment.pop(NOTIFY_SOCKET, None)  # only the launcher speaks for the server
    return subprocess.Popen(
        [*command, str(specification_fd)],
        pass_fds=[specification_fd, *fds],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        env=environment,
    )


@contextmanager
def anonymous_file(name: str, content: bytes) -> Iterator[int]:
    """What a process is told when it is started."""
    fd = os.memfd_create(f"ringserve-{name}", os.MFD_CLOEXEC)
    try:
        os.write(fd, content)
        yield fd
    finally:
        os.close(fd)


def in_plain_words(why: str) -> str:
    """A stage's reason, and what the error codes in it mean."""
    return "\n  ".join([why, *explain(why)])


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
