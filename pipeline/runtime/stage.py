"""What every stage process does: die with its launcher, report its progress, serve one generation after the other.

Started as ``python -m pipeline.<stage> <descriptor of the specification>``.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never

import ipc
from model.runner import Bucket, RunnerFacts
from pipeline.config import Configuration, load_configuration, with_values
from pipeline.runtime.control_channel import Channel, ChannelError
from pipeline.runtime.gc_policy import freeze_gc
from pipeline.runtime.generations import END, Control, Generation, handle_of
from pipeline.runtime.huge_pages import collapse_heap
from pipeline.runtime.logs import configure_logging
from pipeline.runtime.malloc_policy import give_back_freed
from pipeline.runtime.nonblocking_stderr import STDERR
from pipeline.stats import READY, Counters, PauseMeter, StatsHandle, open_stats
from pipeline.wire.api_key import ApiKey
from pipeline.wire.rings import StageRings
from pipeline.wire.step import Shapes
from pipeline.wire.topology import INFERENCE, Topology

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_F_SETSIG = 10  # not in Python's fcntl everywhere


@dataclass(frozen=True, slots=True)
class Specification:
    """What the launcher passes to a stage, as JSON in an anonymous file. Descriptors are inherited. `stage` is the
    key of this stage in the topology of so many fronts, replicas and ranks."""

    stage: str
    topology: dict[str, int]
    config_fd: int
    control_fd: int
    death_fd: int
    stats_fd: int
    listen_fds: tuple[int, ...]
    shapes: dict[str, int]
    facts: dict[str, Any]
    fingerprints: dict[str, str]  # of adapters by name, in hexadecimal
    metrics_fds: tuple[int, ...] = ()
    link_fds: tuple[int, ...] = ()  # of a node
    vocabulary_fd: int | None = None  # for fronts
    ranks_fd: int | None = None  # of the segment in which the ranks of a stage meet, where there are several
    spans_fds: tuple[int, ...] = ()  # of a ring, for fronts, where there is an exporter
    journal_fd: int | None = None  # for fronts: the log of answers that are kept, which outlives them
    api_keys: tuple[ApiKey, ...] = ()

    @property
    def fds(self) -> tuple[int, ...]:
        """All descriptors that the stage inherits."""
        own = (self.config_fd, self.control_fd, self.death_fd, self.stats_fd, *self._sockets)
        some = (self.vocabulary_fd, self.ranks_fd, self.journal_fd)
        return (*own, *self.spans_fds, *(fd for fd in some if fd is not None))

    @property
    def _sockets(self) -> tuple[int, ...]:
        return (*self.listen_fds, *self.metrics_fds, *self.link_fds)

    def to_json(self) -> bytes:
        return json.dumps({name: getattr(self, name) for name in self.__slots__}).encode()

    @classmethod
    def from_fd(cls, fd: int) -> Specification:
        values = json.loads(os.pread(fd, 1 << 20, 0))
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**(values | lists))


class Stage:
    """What a stage's main function gets. `config` is replaced when the launcher reloads it; `on_reload` is called
    then, between two instructions of the main thread."""

    def __init__(self, config: Configuration, control: Control, specification: Specification) -> None:
        self.config, self.control = config, control
        self.topology = Topology(**specification.topology)
        self.spec = self.topology.stage(specification.stage)
        self.name = self.spec.key
        self.replica = self.spec.replica or 0  # of a stage that is not a front
        self.shapes, self.facts = Shapes(**specification.shapes), _facts(specification.facts)
        self.fingerprints = {name: bytes.fromhex(text) for name, text in specification.fingerprints.items()}
        self.stats_handle = StatsHandle(specification.stats_fd, self.topology)
        self.stats = open_stats(self.stats_handle)
        self.listen_fds, self.metrics_fds = specification.listen_fds, specification.metrics_fds
        self.link_fds = specification.link_fds
        self.vocabulary_fd, self.ranks_fd = specification.vocabulary_fd, specification.ranks_fd
        self.journal_fd = specification.journal_fd
        self.spans = handle_of(specification.spans_fds) if specification.spans_fds else None
        self.api_keys = _api_keys(specification.api_keys)
        self.on_reload: Callable[[], None] | None = None
        self.aboard: Callable[[], Collection[int] | None] = tuple  # see `Control.waiting`
        self._configure_logging()
        control.on("reload", self._reload)
        self.pauses = PauseMeter(self.stats, self.name)

    def _reload(self, fields: Mapping[str, Any]) -> None:
        self.config = with_values(self.config, fields["values"])
        self.api_keys = _api_keys(fields["api_keys"])
        self._configure_logging()
        if self.on_reload is not None:
            self.on_reload()

    def _configure_logging(self) -> None:
        settings = self.config.pipeline.log
        configure_logging(self.name, level=settings.level, form=settings.format)

    @property
    def end_options(self) -> dict[str, Any]:
        """Options with which this stage attaches to its rings. The front waits in its event loop and never spins."""
        return {"label": self.name, "spin_us": getattr(self.config.pipeline.spin_us, self.spec.name)}

    def serve(self, run: Callable[[Generation, StageRings], None]) -> Never:
        """Call `run` for each generation; it works until a ring closes, and keeps no reference to its rings."""
        freeze_gc(self.spec.role)
        give_back_freed()
        if self.spec.name != INFERENCE.name:  # which holds the model
            collapse_heap()
        end_as_usual()
        self.control.watch()
        while True:
            self.control.waiting(self.replica, self.aboard())
            self._serve_one(self.control.next_generation(self.replica), run)
            gc.collect()  # no reference to the old rings may stay; no step waits here

    def _serve_one(self, generation: Generation, run: Callable[[Generation, StageRings], None]) -> None:
        rings = StageRings.take_over(self.spec, generation.handles, self.shapes)
        try:
            run(generation, rings)
        except (ipc.PeerDied, ipc.RingClosed):
            pass  # the launcher knows which stage died first, and logs it
        finally:
            self.pauses.stop()
            self.on_reload = None
            Counters(self.stats, self.name).set(READY, 0)
            rings.close()

    def begin(self, generation: Generation) -> None:
        """All ends are attached: from here on this stage accepts work."""
        self.pauses.start()
        Counters(self.stats, self.name).set_ready()
        self.control.ready(generation)


def _api_keys(values: Iterable[Iterable[Any]]) -> tuple[ApiKey, ...]:
    return tuple(ApiKey(*one) for one in values)


def _facts(values: Mapping[str, Any]) -> RunnerFacts:
    """Stages other than inference make no runner: that reads the checkpoint, and asks for memory it no longer has."""
    return RunnerFacts(**{**values, "buckets": tuple(Bucket(**bucket) for bucket in values["buckets"])})


def run_stage(load: Callable[[], Callable[[Stage], None]], *, clean_up: bool = False) -> Never:
    """The whole life of a stage's process. `load` imports the stage's main function. `clean_up`: at its end, as
    engines must. Otherwise it just ends: threads may be at work on a long text, and all it has goes with it."""
    status = _run(int(sys.argv[-1]), load)
    if clean_up:
        sys.exit(status)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _run(fd: int, load: Callable[[], Callable[[Stage], None]]) -> int:
    specification = Specification.from_fd(fd)
    die_with_launcher(specification.death_fd)
    name_process(specification.stage)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(END, _leave_quietly)
    control = Control(Channel.inherited(specification.control_fd))
    try:
        gc.disable()  # what is imported stays: there is nothing to find
        run = load()
        gc.enable()
        run(_stage(specification, control))
    except SystemExit:
        return 0
    except Exception as error:  # noqa: BLE001 - the last place where it can be reported
        with contextlib.suppress(ChannelError):
            control.failed(describe_failure(error))
        if not _is_expected(error):
            traceback.print_exc()
        return 1
    finally:
        signal.signal(END, signal.SIG_IGN)  # libraries clean up at exit, which must not be interrupted
    return 0


def _stage(specification: Specification, control: Control) -> Stage:
    config = load_configuration(f"/proc/self/fd/{specification.config_fd}")
    stage = Stage(config, control, specification)
    apply_cpu_policy(stage.spec.name, getattr(config.pipeline.cpus, stage.spec.name))
    return stage


def _is_expected(error: Exception) -> bool:
    from model.errors import ModelError

    return isinstance(error, ModelError | ipc.IpcError | ChannelError | OSError)


def describe_failure(error: Exception) -> str:
    """For the launcher's log. Errors for lack of memory seldom have a message of their own."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if limit == resource.RLIM_INFINITY or not isinstance(error, MemoryError | ImportError | ipc.SegmentError):
        return what
    return f"{what}; address space is limited to {limit >> 20} MiB (RLIMIT_AS), maybe too little: ulimit -v unlimited"


def end_as_usual() -> None:
    """Everything is loaded. Until then an exit in the midst of an import may be turned into another error, whose
    traceback must not hide the line that says why the server does not start."""
    signal.signal(END, _leave)


def _leave(*_: object) -> Never:
    raise SystemExit(0)


def _leave_quietly(*_: object) -> Never:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, STDERR)
    os.close(nowhere)
    raise SystemExit(0)


def name_process(name: str) -> None:
    """What `ps -o comm` and `top` show."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, f"rs-{name.replace(' ', '-')}".encode()[:15], 0, 0, 0)


def apply_cpu_policy(name: str, cpus: tuple[int, ...] | None) -> None:
    """Pin to the configured CPUs, if any. Where CPUs are few, a stage that wakes up must not preempt inference, hence
    SCHED_BATCH (sched(7)): inference is about to start the next step, and leaves the CPU to the others while the
    device computes.

    Applies to every thread that imported libraries have started by now; later threads inherit it."""
    for thread in [int(task.name) for task in Path("/proc/self/task").iterdir()]:
        with contextlib.suppress(ProcessLookupError):
            if cpus is not None:
                os.sched_setaffinity(thread, cpus)
            if name != INFERENCE.name:
                with contextlib.suppress(PermissionError):  # a sandbox may forbid it; it only helps, nothing needs it
                    os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def die_with_launcher(death_fd: int) -> None:
    """Two ways, since either may be missing: the kernel's signal at the parent's death, and a pipe that only the
    launcher holds the other end of, which sends a signal when it breaks."""
    die_with_parent()
    fcntl.fcntl(death_fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(death_fd, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(death_fd, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    try:
        gone = os.read(death_fd, 1) == b""
    except BlockingIOError:
        gone = False
    if gone:  # the launcher died before we listened
        os.kill(os.getpid(), signal.SIGKILL)
