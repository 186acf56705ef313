"""Fixtures: rings that are gone after the test, child processes that are dead after it, and a check of both."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

import ipc
from tests.forked import Forked, preload

preload("tests.ipc.children")

CHILDREN = Path(__file__).with_name("children.py")


def segments_of(pid: int) -> list[str]:
    return [path.name for path in Path("/dev/shm").iterdir() if f"-{pid}-" in path.name]


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    yield
    assert segments_of(os.getpid()) == []


class Child:
    """A process in one of the roles of children.py."""

    def __init__(self, role: str, rings: dict[str, Any], prefix: tuple[str, ...], options: dict[str, Any]) -> None:
        handles = {key: ring.handle for key, ring in rings.items()}
        texts = json.dumps({key: handle.to_text() for key, handle in handles.items()})
        fds = [fd for handle in handles.values() for fd in handle.fds]
        self.process = _start(prefix, (role, texts, json.dumps(options)), fds)

    @property
    def pid(self) -> int:
        return self.process.pid

    def expect(self, word: str) -> None:
        line = self.process.stdout.readline()
        assert line.strip() == word, f"{line!r} instead of {word!r}"

    def tell(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def result(self, timeout: float = 60) -> Any:
        out, _ = self.process.communicate(timeout=timeout)
        assert self.process.returncode == 0
        return json.loads(out.splitlines()[-1])["result"]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None and isinstance(self.process, subprocess.Popen):
            os.killpg(self.pid, signal.SIGKILL)  # what runs it, too
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None and not pipe.closed:
                pipe.close()


def _start(prefix: tuple[str, ...], arguments: tuple[str, ...], fds: list[int]) -> Any:
    """A fork, or under the command `prefix` a process of its own."""
    if not prefix:
        return Forked("tests.ipc.children", arguments, fds)
    command = [*prefix, sys.executable, str(CHILDREN), *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, pass_fds=fds, text=True, start_new_session=True, **pipes)


@pytest.fixture
def spawn() -> Iterator[Callable[..., Child]]:
    children: list[Child] = []

    def start(role: str, rings: dict[str, Any], *, prefix: tuple[str, ...] = (), **options: Any) -> Child:
        children.append(Child(role, rings, prefix, options))
        return children[-1]

    yield start
    for child in children:
        child.stop()


@pytest.fixture
def slot_ring() -> Iterator[Callable[..., ipc.SlotRing]]:
    made: list[ipc.SlotRing] = []

    def make(name: str = "test", **options: Any) -> ipc.SlotRing:
        made.append(ipc.SlotRing.create(name, **({"slots": 4, "slot_size": 64} | options)))
        return made[-1]

    yield make
    for ring in made:
        ring.__exit__()


@pytest.fixture
def byte_ring() -> Iterator[Callable[..., ipc.ByteRing]]:
    made: list[ipc.ByteRing] = []

    def make(name: str = "test", **options: Any) -> ipc.ByteRing:
        made.append(ipc.ByteRing.create(name, **({"capacity": 1024} | options)))
        return made[-1]

    yield make
    for ring in made:
        ring.__exit__()


@pytest.fixture
def pair(slot_ring):
    ring = slot_ring(slots=4, slot_size=64)
    return ring.producer(spin_us=0), ring.consumer(spin_us=0)


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request):
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def runner(coroutine):
        with asyncio.Runner(loop_factory=factory) as loop:
            return loop.run(asyncio.wait_for(coroutine, 30))

    return runner
