"""A server that is started for a measurement, with everything that it starts in turn."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.lab.errors import BenchError

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
        """Raises BenchError with its last words where it has ended by itself, or does so within a moment."""
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
    far, and gives its base URL as soon as it can be asked. Raises BenchError when it does not come up."""
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=dict(environment or os.environ),
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - no threads run here yet
        )
    try:
        url = _wait(process, log, find_url, began + timeout_s)
        yield Running(process.pid, url, time.monotonic() - began, log, process)
    finally:
        _stop(process)


def _end_with_parent() -> None:
    """The server is told to end when this process is killed and can't tell it itself."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def exit_when_told() -> None:
    """SIGTERM unwinds the stack, as Ctrl-C does, so that what was started is ended."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _wait(process: subprocess.Popen[bytes], log: Path, find_url: Callable[[str], str | None], deadline: float) -> str:
    while process.poll() is None and time.monotonic() < deadline:
        if url := find_url(log.read_text(errors="replace")):
            return url
        time.sleep(_POLL_S)
    raise _ended(process, log)


def _ended(process: subprocess.Popen[bytes], log: Path) -> BenchError:
    status = process.poll()
    why = "did not become ready in time" if status is None else f"ended with status {status}"
    said = log.read_text(errors="replace")[-3000:]
    return BenchError(f"the server {why}; it said:\n{said}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def descendants(pid: int) -> list[int]:
    """The process and all below it that live."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    return "gone"


def _rss_pss(pid: int) -> tuple[int, int]:
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        sizes = {name: int(rest.split()[0]) << 10 for name, rest in (line.split(":", 1) for line in lines)}
        return sizes["Rss"], sizes["Pss"]
    return 0, 0


def _cpu_s(pid: int) -> float:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0
