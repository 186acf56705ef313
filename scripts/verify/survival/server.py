"""The server under test, as users start it, and what can be seen of it from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ipc.inspect import FoundSegment, find_segments
from pipeline.stats import STAGES
from pipeline.wire.rings import ENDS

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0
_RINGS = len(ENDS["preprocess"])  # nobody has more


class ServerError(Exception):
    """It did not start, or went away."""


class Server:
    """A server that runs. Its log goes to a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log = process, log
        self.port = 0

    @property
    def pid(self) -> int:
        """Of the launcher."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status; None while it runs."""
        return self._process.poll()

    def said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def until_started(self) -> None:
        """Raises ServerError."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.status is None and time.monotonic() < deadline:
            said = self.said()
            if "try: curl" in said:
                self.port = int(next(line for line in said.splitlines() if "listening on" in line).rsplit(":", 1)[1])
                return
            time.sleep(0.02)
        raise ServerError(f"the server did not start:\n{self.said()}")

    def stages(self) -> dict[str, int]:
        """Pids by name, of those that live."""
        found = {}
        for pid in _children(self.pid):
            with contextlib.suppress(OSError, ValueError, IndexError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                module = words[words.index(b"-m") + 1].decode()
                if _state(pid) != "Z":
                    found[module.removeprefix("pipeline.")] = pid
        return found

    def metrics(self) -> dict[str, float]:
        """`/metrics`, by name with labels. Raises OSError."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def segments(self) -> list[FoundSegment]:
        """That this server's processes hold, and names that it made."""
        mine = {self.pid, *self.stages().values()}
        return [found for found in find_segments() if mine & {*found.pids} or f"-{self.pid}-" in found.name]

    def descriptors(self) -> dict[str, int]:
        """Open descriptors by process. A pidfd is opened when a wait lasts for the first time, and may or may not be
        there; one per ring is allowed for, whatever the number."""
        pids = {"launcher": self.pid, **self.stages()}
        return {name: _count_descriptors(pid) for name, pid in pids.items()}

    def resident_bytes(self) -> dict[str, int]:
        """RSS by process."""
        page = os.sysconf("SC_PAGE_SIZE")
        pids = {"launcher": self.pid, **self.stages()}
        return {
            name: int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * page
            for name, pid in pids.items()
        }

    def lost_wakes(self) -> int:
        """Timed waits that expired though data was there, in all rings; must be 0. Raises ServerError."""
        rings = [found.ring for found in self.segments() if found.ring is not None]
        if not rings:
            raise ServerError("no ring was found")
        return sum(side.counters["lost_wakes"] for ring in rings for side in (ring.producer, *ring.consumers))

    def stop(self) -> int:
        """SIGTERM, and the exit status; whoever is left then is killed."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_TIMEOUT_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()


@contextlib.contextmanager
def started(config: Path, overrides: Sequence[str], log: Path) -> Iterator[Server]:
    """Raises ServerError."""
    sets = [word for override in ("serving_config.server_port=0", *overrides) for word in ("--set", override)]
    command = [sys.executable, "-m", "pipeline.launch", "--config", str(config), *sets]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stderr=out, start_new_session=True)
    server = Server(process, log)
    try:
        server.until_started()
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def log_file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ringserve-survival-") as directory:
        yield Path(directory) / "server.log"


def traces(launcher: int, stages: Mapping[str, int]) -> list[str]:
    """What is left of a server that has ended: processes, and names of segments."""
    pids = {"launcher": launcher, **stages}
    left = [f"process {name} ({pid})" for name, pid in pids.items() if _state(pid) not in ("", "Z")]
    return left + [
        found.name for found in find_segments() if f"-{launcher}-" in found.name or {*found.pids} & {*stages.values()}
    ]


def _count_descriptors(pid: int) -> int:
    targets = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            targets.append(str(path.readlink()))
    pidfds = targets.count("anon_inode:[pidfd]")
    return len(targets) - pidfds + max(pidfds, _RINGS)


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def _state(pid: int) -> str:
    """One letter, as in proc(5); empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


__all__ = ["STAGES", "Server", "ServerError", "log_file", "started", "traces"]
