"""A server that is started for a measurement, with everything that it starts in turn."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.lab.clock import cpu_seconds
from scripts.lab.errors import ServerError

_STOP_S = 40.0
_POLL_S = 0.05
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a server and all its descendants, in bytes. PSS shares out what several processes map."""

    rss: int
    pss: int
    by_process: Mapping[str, int]  # PSS by the name that the process has given itself


@dataclass(frozen=True, slots=True)
class Running:
    pid: int
    base_url: str
    ready_s: float  # from the command to the first moment it could be asked
    log: Path
    process: subprocess.Popen[bytes]

    def require_alive(self, patience_s: float) -> None:
        """Raises ServerError with its last words where it has ended by itself, or does so within a moment."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience_s)
            raise _ended(self.process, self.log)

    def memory(self) -> Memory:
        found = [(_name(pid), *_rss_pss(pid)) for pid in descendants(self.pid)]
        by_process: dict[str, int] = {}
        for name, _, pss in found:
            by_process[name] = by_process.get(name, 0) + pss
        return Memory(sum(rss for _, rss, _ in found), sum(by_process.values()), by_process)

    def cpu_s(self) -> float:
        """CPU time so far of those that live."""
        return sum(_cpu_s(pid) for pid in descendants(self.pid))


@contextlib.contextmanager
def started(
    command: Sequence[str],
    log: Path,
    find_url: Callable[[str], str | None],
    *,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """Run `command` until the context ends, then all of its session. `find_url` sees what the server has written so
    far, and gives its base URL as soon as it can be asked. Raises ServerError when it does not come up."""

    def wait(process: subprocess.Popen[bytes], deadline: float) -> str | None:
        while process.poll() is None and time.monotonic() < deadline:
            if url := find_url(log.read_text(errors="replace")):
                return url
            time.sleep(_POLL_S)
        return None

    with running(command, log, wait, timeout_s=timeout_s, environment=environment) as server:
        yield server


@contextlib.contextmanager
def running(
    command: Sequence[str],
    log: Path,
    wait: Callable[[subprocess.Popen[bytes], float], str | None],
    *,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    cwd: Path | None = None,
) -> Iterator[Running]:
    """As `started`, but `wait` gets the process and a deadline, and gives the URL or None."""
    began = time.monotonic()
    process = spawn(command, log, environment=environment, pass_fds=pass_fds, cwd=cwd)
    try:
        url = wait(process, began + timeout_s)
        if url is None:
            raise _ended(process, log)
        yield Running(process.pid, url, time.monotonic() - began, log, process)
    finally:
        end(process)


def spawn(
    command: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """A process with a session of its own. What it writes goes to `log`. It gets SIGTERM when the thread ends that
    called this."""
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=dict(environment or os.environ),
            pass_fds=pass_fds,
            cwd=cwd,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - one system call, and nothing that another thread may hold
        )


_PRCTL = ctypes.CDLL(None).prctl


def _end_with_parent() -> None:
    """The server gets SIGTERM when this process is killed and can't send it itself."""
    _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def end(process: subprocess.Popen[bytes]) -> int:
    """SIGTERM, and the exit status. What is left of its session then, or after some time, is killed."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    return kill(process)


def kill(process: subprocess.Popen[bytes]) -> int:
    """The whole session, at once; the exit status."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def exit_when_told() -> None:
    """SIGTERM unwinds the stack, as Ctrl-C does, so that what was started is ended."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _ended(process: subprocess.Popen[bytes], log: Path) -> ServerError:
    status = process.poll()
    why = "did not become ready in time" if status is None else f"ended with status {status}"
    written = log.read_text(errors="replace")[-3000:]
    return ServerError(f"the server {why}; its log ends with:\n{written}")


def free_port() -> int:
    """Of loopback; for servers that can't choose one themselves."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def descendants(pid: int) -> list[int]:
    """The process and all below it that live."""
    found = [pid]
    for parent in found:
        found += children(parent)
    return found


def children(pid: int) -> list[int]:
    """Of all its threads; none if it is gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def lives(pid: int) -> bool:
    """It is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def resident_bytes(pid: int) -> int:
    """RSS, as the kernel keeps count of it. Raises OSError."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def own_bytes(pid: int) -> int:
    """Its part of memory that is neither a file's nor a segment's: those come and go with programs and generations
    that are none of its doing. Raises OSError."""
    return _sizes(pid)["Pss_Anon"]


def threads(pid: int) -> int:
    """Raises OSError."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    return "gone"


def _rss_pss(pid: int) -> tuple[int, int]:
    with contextlib.suppress(OSError):
        sizes = _sizes(pid)
        return sizes["Rss"], sizes["Pss"]
    return 0, 0


def _sizes(pid: int) -> dict[str, int]:
    """Of all its mappings together, in bytes. Raises OSError."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(rest.split()[0]) << 10 for name, rest in (line.split(":", 1) for line in lines)}


def _cpu_s(pid: int) -> float:
    with contextlib.suppress(OSError):
        return cpu_seconds(pid)
    return 0.0
