"""What every stage process does: dies with its launcher, reports its progress, runs its loop, closes its rings.

Started as ``python -m pipeline.stage <name> <descriptor of the specification>``.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Never

import ipc
from pipeline.config import Configuration, load_configuration
from pipeline.descriptors import Shapes
from pipeline.stats import StatsHandle, StatsPage
from pipeline.wiring import StageRings

NAMES = ("front", "preprocess", "inference", "sampling")
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_F_SETSIG = 10  # not in Python's fcntl everywhere


@dataclass(frozen=True, slots=True)
class Specification:
    """What the launcher tells a stage, as JSON in an anonymous file. Descriptors are inherited."""

    config_fd: int
    status_fd: int
    death_fd: int
    stats_fd: int
    listen_fds: tuple[int, ...]
    rings: dict[str, str]
    shapes: dict[str, int]
    metrics_fds: tuple[int, ...] = ()
    api_keys: tuple[str, ...] = ()  # digests

    def to_json(self) -> bytes:
        return json.dumps({name: getattr(self, name) for name in self.__slots__}).encode()

    @classmethod
    def from_fd(cls, fd: int) -> Specification:
        values = json.loads(os.pread(fd, 1 << 20, 0))
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**(values | lists))


class Status:
    """One JSON object per line to the launcher: progress, ready, or what went wrong."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def progress(self, what: str, done: int, total: int) -> None:
        self._send(event="progress", what=what, done=done, total=total)

    def ready(self) -> None:
        self._send(event="ready")

    def failed(self, why: str) -> None:
        self._send(event="failed", why=why)

    def _send(self, **message: Any) -> None:
        os.write(self._fd, json.dumps(message).encode() + b"\n")


@dataclass(frozen=True)
class Stage:
    """What a stage's main function gets."""

    name: str
    config: Configuration
    shapes: Shapes
    rings: StageRings
    status: Status
    stats_fd: int
    listen_fds: tuple[int, ...]
    metrics_fds: tuple[int, ...] = ()
    api_keys: tuple[str, ...] = ()

    @cached_property
    def stats(self) -> StatsPage:
        return StatsPage.from_handle(StatsHandle(self.stats_fd))

    @property
    def end_options(self) -> dict[str, Any]:
        """How this stage attaches to its rings. The front's ends wait in its event loop and never spin."""
        return {"label": self.name, "spin_us": getattr(self.config.pipeline.spin_us, self.name)}


def main() -> int:
    name, fd = sys.argv[1], int(sys.argv[2])
    specification = Specification.from_fd(fd)
    die_with_launcher(specification.death_fd)
    name_process(name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the launcher decides
    signal.signal(signal.SIGTERM, _leave)
    status = Status(specification.status_fd)
    try:
        run = _entry(name)
        run(_stage(name, specification, status))
    except SystemExit:
        return 0
    except (ipc.PeerDied, ipc.RingClosed):
        return 0  # the launcher has seen who died first, and says so
    except Exception as error:  # noqa: BLE001 - the last place where it can be told
        status.failed(f"{type(error).__name__}: {error}")
        if not _is_expected(error):
            traceback.print_exc()
        return 1
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # libraries clean up at exit; that is not to be interrupted
    return 0


def _stage(name: str, specification: Specification, status: Status) -> Stage:
    config = load_configuration(f"/proc/self/fd/{specification.config_fd}")
    shapes = Shapes(**specification.shapes)
    take_place(name, getattr(config.pipeline.cpus, name))
    rings = StageRings.take_over(specification.rings, shapes)
    return Stage(
        name,
        config,
        shapes,
        rings,
        status,
        specification.stats_fd,
        specification.listen_fds,
        specification.metrics_fds,
        specification.api_keys,
    )


def _entry(name: str) -> Callable[[Stage], None]:
    """Only inference imports what inference needs."""
    if name == "inference":
        from pipeline.inference.main import run_inference

        return run_inference
    if name == "sampling":
        from pipeline.sampling.main import run_sampling

        return run_sampling
    if name == "preprocess":
        from pipeline.preprocess.main import run_preprocess

        return run_preprocess
    from pipeline.front.main import run_front_stage

    return run_front_stage


def _is_expected(error: Exception) -> bool:
    from model.errors import ModelError

    return isinstance(error, ModelError | ipc.IpcError | OSError)


def _leave(*_: object) -> Never:
    raise SystemExit(0)


def settle() -> None:
    """What start-up made stays: the collector need not look at it again, and has little left to do."""
    gc.collect()
    gc.freeze()


def name_process(name: str) -> None:
    """What `ps -o comm` and `top` show."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, f"rs-{name}".encode()[:15], 0, 0, 0)


def take_place(name: str, cpus: tuple[int, ...] | None) -> None:
    """On the configured CPUs, if any; and where CPUs are few, nobody who is woken may push inference off its own: it
    is on its way to the next step, and then leaves the CPU to the others while the device computes (sched(7)).

    Libraries that are imported by now have threads already; those to come inherit."""
    for thread in [int(task.name) for task in Path("/proc/self/task").iterdir()]:
        with contextlib.suppress(ProcessLookupError):
            if cpus is not None:
                os.sched_setaffinity(thread, cpus)
            if name != "inference":
                with contextlib.suppress(PermissionError):  # a sandbox may forbid it; it is a favour, not a need
                    os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))


def die_with_launcher(death_fd: int) -> None:
    """Two ways, since either may be missing: the kernel's signal at the parent's death, and a pipe that only the
    launcher holds the other end of, which sends a signal when it breaks."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    fcntl.fcntl(death_fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(death_fd, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(death_fd, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    try:
        gone = os.read(death_fd, 1) == b""
    except BlockingIOError:
        gone = False
    if gone:  # the launcher died before we listened
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
