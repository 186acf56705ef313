"""The servers: RingServe as users start it, and what it replaces. Both run until their context ends."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from scripts.bench.overhead.replaced.server import serve_replaced
from scripts.bench.overhead.variants import Variant
from scripts.lab.clock import cpu_seconds

START_TIMEOUT_S = 120.0


class ServerError(Exception):
    """A server did not start."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    port: int
    pids: dict[str, int]  # by stage
    ready_s: float  # from the command to "ready"

    def cpu_s(self) -> dict[str, float]:
        """CPU time so far, by stage."""
        return {name: cpu_seconds(pid) for name, pid in self.pids.items()}

    @contextlib.contextmanager
    def traced(self, seconds: float) -> Iterator[list[dict[str, Any]]]:
        """The events of the coming seconds; they are there when the context has ended. RingServe only."""
        events: list[dict[str, Any]] = []
        thread = threading.Thread(target=self._trace, args=(seconds, events))
        thread.start()
        try:
            yield events
        finally:
            thread.join()

    def _trace(self, seconds: float, events: list[dict[str, Any]]) -> None:
        url = f"http://127.0.0.1:{self.port}/debug/trace?seconds={seconds:.3f}"
        with urllib.request.urlopen(url, timeout=seconds + 60) as answer:
            events += json.load(answer)["traceEvents"]


@contextlib.contextmanager
def started(
    variant: Variant, file: Path, batches: tuple[int, ...], overrides: Sequence[str] = ()
) -> Iterator[Server]:
    """Raises ServerError."""
    context = _replaced(file, batches) if variant.replaced else ringserve(file, (*variant.overrides, *overrides))
    with context as server:
        yield server


@contextlib.contextmanager
def ringserve(file: Path, overrides: Sequence[str] = ()) -> Iterator[Server]:
    """As a user starts it. Raises ServerError."""
    sets = [word for override in overrides for word in ("--set", override)]
    command = [sys.executable, "-m", "pipeline.launch", "--config", str(file), *sets]
    with file.with_suffix(".log").open("w+", encoding="utf-8") as log:
        began = time.monotonic()
        process = subprocess.Popen(command, stderr=log, start_new_session=True)
        try:
            port = _port(process, log)
            yield Server(port, {"launcher": process.pid, **_stages(process.pid)}, time.monotonic() - began)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _port(process: subprocess.Popen[bytes], log: IO[str]) -> int:
    """What the launcher says when it listens."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        log.seek(0)
        said = log.read()
        if "try: curl" in said:
            address = next(line for line in said.splitlines() if "listening on" in line)
            return int(address.rsplit(":", 1)[1])
        time.sleep(0.02)
    log.seek(0)
    raise ServerError(f"RingServe did not start:\n{log.read()}")


def _stages(launcher: int) -> dict[str, int]:
    """Children of the launcher, by the name that each has given itself."""
    pids = Path(f"/proc/{launcher}/task/{launcher}/children").read_text(encoding="ascii").split()
    names = {int(pid): Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() for pid in pids}
    return {name.removeprefix("rs-"): pid for pid, name in names.items()}


@contextlib.contextmanager
def _replaced(file: Path, batches: tuple[int, ...]) -> Iterator[Server]:
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    began = time.monotonic()
    process = spawn.Process(target=serve_replaced, args=(file, batches, there))
    process.start()
    there.close()
    try:
        if not here.poll(START_TIMEOUT_S):
            raise ServerError("the replaced data path did not start")
        port, agent = here.recv()
        assert process.pid is not None
        yield Server(port, {"server": process.pid, "agent": agent}, time.monotonic() - began)
    except EOFError as error:
        raise ServerError("the replaced data path ended while it started") from error
    finally:
        process.terminate()
        process.join(20)
        if process.is_alive():
            process.kill()
            process.join()
