"""RingServe as users start it, and what can be seen of it from outside."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from scripts.lab.processes import Running, children, end, running

START_S = 120.0
WARM = "pipeline.runner.warm_up=all"
"""For measurements: nothing is compiled while they run."""
UNDER_WAY = ("requests_in_flight", "num_requests_running", "num_requests_waiting", "kv_blocks_used")
"""Gauges that are 0 while no request is under way."""

_LOOK_S = 0.05


class Server(Running):
    """One that runs."""

    __slots__ = ()

    @property
    def port(self) -> int:
        return int(self.base_url.rsplit(":", 1)[1])

    @property
    def status(self) -> int | None:
        """Exit status; None while it runs."""
        return self.process.poll()

    def log_text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def stages(self) -> dict[str, int]:
        """Pids by name, of those that live."""
        return stages_of(self.pid)

    def processes(self) -> dict[str, int]:
        """Those of the stages, and the launcher's."""
        return {"launcher": self.pid, **self.stages()}

    def metrics(self) -> Metrics:
        """`/metrics`. Raises OSError."""
        return read_metrics(self.base_url)

    def restarts(self) -> int:
        """Of all stages so far. Raises OSError."""
        return int(self.metrics().total("restarts_total"))

    def under_way(self, patience_s: float) -> dict[str, float]:
        """Wait until nothing is; what still is then. Raises OSError."""
        deadline = time.monotonic() + patience_s
        while True:
            metrics = self.metrics()
            busy = {name: value for name in UNDER_WAY if (value := metrics.total(name))}
            if not busy or time.monotonic() > deadline:
                return busy
            time.sleep(_LOOK_S)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        return end(self.process)


@contextlib.contextmanager
def launched(
    config: Path, overrides: Sequence[str], log: Path, *, timeout_s: float = START_S, options: Sequence[str] = ()
) -> Iterator[Server]:
    """On any free port, until the context ends. Raises ServerError with its last words if it does not come up."""
    with ReadyPipe() as pipe:
        command = [*launch_command(config, ("serving_config.server_port=0", *overrides)), *options, *pipe.options]
        with running(command, log, pipe.wait, timeout_s=timeout_s, pass_fds=pipe.fds) as server:
            yield Server(server.pid, server.base_url, server.ready_s, log, server.process)


def launch_command(config: Path, overrides: Sequence[str] = ()) -> list[str]:
    sets = [word for override in overrides for word in ("--set", override)]
    what = [str(config)] if config.is_dir() else ["--config", str(config)]
    return [sys.executable, "-m", "pipeline.launch", *what, *sets]


class ReadyPipe:
    """Where a launcher reports that every stage serves; it is closed without a line when the launcher ends."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self.options, self.fds = ("--ready-fd", str(self._write)), (self._write,)

    def wait(self, process: subprocess.Popen[bytes], deadline: float) -> str | None:
        """The base URL, or where a node takes links; None for a launcher that has ended, or is not ready at the
        deadline. Only once."""
        os.close(self._write)
        self._write = -1
        with selectors.DefaultSelector() as selector:
            selector.register(self._read, selectors.EVENT_READ)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return None
        if line := os.read(self._read, 1 << 16):
            told = json.loads(line)
            return str([*told["api"], *told.get("links", ())][0])
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        return None

    def __enter__(self) -> ReadyPipe:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (self._read, self._write):
            if fd >= 0:
                os.close(fd)


def stages_of(launcher: int) -> dict[str, int]:
    """Pids by the keys of stages, of those that live."""
    found = {}
    for pid in children(launcher):
        with contextlib.suppress(OSError, ValueError, IndexError):  # it is gone, or not yet what it will be
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            module, *numbers, _descriptor = words[words.index(b"-m") + 1 : -1]
            found[" ".join([module.decode().removeprefix("pipeline."), *(part.decode() for part in numbers)])] = pid
    return found


class Metrics(dict[str, float]):
    """By name with labels."""

    def total(self, name: str, **labels: str) -> float:
        """The sum over all that have these values of labels, whatever the others. Raises KeyError if none has."""
        start = re.compile(rf"ringserve_{name}(?:{{|$)")
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        found = [
            value for key, value in self.items() if start.match(key) and wanted <= {*re.findall(r'\w+="[^"]*"', key)}
        ]
        if not found:
            raise KeyError(f"no ringserve_{name} with {labels}")
        return sum(found)


def read_metrics(base_url: str, headers: Mapping[str, str] | None = None) -> Metrics:
    """`/metrics` of the server there. Raises OSError."""
    request = urllib.request.Request(f"{base_url}/metrics", headers=dict(headers or {}))  # noqa: S310 - http only
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - likewise
        lines = answer.read().decode(errors="replace").splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return Metrics((name, float(value)) for name, value in pairs)
