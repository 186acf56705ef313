"""Fixtures: a front in a process of its own, a peer in another at the other end of its rings."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import pytest

import ipc
from model.demo import DEMO_DIR
from pipeline.runtime.control_channel import Channel
from pipeline.runtime.generations import END, Ended, Generation
from pipeline.stats import StatsPage
from tests.forked import Forked, preload

preload("tests.pipeline.front.serve", "tests.pipeline.front.peer")

_END_S = 2.0
DEFAULTS: dict[str, Any] = {
    "model_name": "tiny", "vocab_size": 1000, "max_length": 4096, "max_prompt": 4000, "max_rows": 8, "max_queue": 100,
    "keep_alive_s": 5.0, "drain_timeout_s": 5.0, "unknown_parameters": "refuse",
}  # fmt: skip


class Process:
    """A child whose standard output is JSON lines, and whose standard error is kept."""

    def __init__(self, module: str, *arguments: str, fds: list[int]) -> None:
        self.process = Forked(f"tests.pipeline.front.{module}", arguments, fds)
        self.lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self.errors: list[str] = []
        self._threads = [threading.Thread(target=self._read_out), threading.Thread(target=self._read_errors)]
        for thread in self._threads:
            thread.start()

    def _read_out(self) -> None:
        for line in self.process.stdout:
            self.lines.put(json.loads(line))

    def _read_errors(self) -> None:
        self.errors.extend(self.process.stderr)

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    def tell(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def expect(self, key: str, timeout: float = 20) -> Any:
        """The value of the next line with this key; others are passed over."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self.lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                state = f"exit status {self.process.poll()}, errors: {''.join(self.errors)}"
                raise AssertionError(f"no {key!r} within {timeout} s; {state}") from None
            if key in line:
                return line if key == "submit" else line[key]

    def wait(self, timeout: float = 20) -> int:
        return int(self.process.wait(timeout))

    def log(self, word: str, timeout: float = 10) -> str:
        """The first line of standard error with this word in it."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for line in self.errors:
                if word in line:
                    return line
            time.sleep(0.01)
        raise AssertionError(f"no {word!r} in {''.join(self.errors)}")

    def stop(self) -> None:
        """Coverage is written at SIGTERM, where it is measured; else that ends it as well as any signal."""
        self.process.terminate()
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.wait(_END_S)
        except subprocess.TimeoutExpired:  # it drains
            self.process.kill()
            self.process.wait()
        for thread in self._threads:
            thread.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class Served:
    """A front, its peer, and ways to talk to both. The test is its launcher; `wired`: it gives rings at once."""

    def __init__(self, ring_bytes: int, *, wired: bool = True, **settings: Any) -> None:
        self._ring_bytes, self._tokenizer = ring_bytes, str(settings.get("tokenizer", DEMO_DIR))
        self.rings: dict[str, ipc.ByteRing] = {}
        self.stats = StatsPage.create()
        self.channel, self._theirs = Channel.pair()
        self.journal = ipc.make_log(1 << 20)
        self.generation = 0
        self.http = httpx.Client(timeout=20)
        self.processes: list[Process] = []
        try:
            self._start_both(settings, wired)
        except BaseException:
            self.stop()
            raise

    def _start_both(self, settings: dict[str, Any], wired: bool) -> None:
        self._settings = json.dumps(DEFAULTS | settings)
        self._start_front()
        if wired:
            self.wire()

    def _start_front(self) -> None:
        fds = [self._theirs.fileno(), self.journal]
        self.front = self._start("serve", self._settings, *map(str, fds), fds=fds)
        listening = self.front.expect("listening")
        self.port: int = listening["port"]
        self.metrics_port: int | None = listening["metrics_port"]
        self.url = f"http://127.0.0.1:{self.port}"
        self.http.base_url = httpx.URL(self.url)

    def replace_front(self, **about: Any) -> None:
        """It is killed, with everything at its rings, and another one begins, with the journal that it has left.
        `about`: see `wire`."""
        self.front.process.kill()
        self.front.process.wait()
        self.peer.stop()
        for ring in self.rings.values():
            ring.revoke()
            ring.__exit__()
        self.channel.close()
        self._theirs.close()
        self.channel, self._theirs = Channel.pair()
        self._start_front()
        self.wire(**about)

    def _start(self, module: str, *arguments: str, fds: list[int]) -> Process:
        stats = self.stats.handle.fd
        self.processes.append(Process(module, *arguments, str(stats), fds=[stats, *fds]))
        return self.processes[-1]

    def make_rings(self) -> None:
        self.rings = {
            name: ipc.ByteRing.create(name, capacity=self._ring_bytes) for name in ("requests", "replies", "deltas")
        }
        self.handles = {name: ring.handle for name, ring in self.rings.items()}
        self._texts = {name: handle.to_text() for name, handle in self.handles.items()}
        self._fds = [fd for handle in self.handles.values() for fd in handle.fds]

    def start_peer(self) -> None:
        self.peer = self._start("peer", json.dumps(self._texts), self._tokenizer, fds=self._fds)
        self.peer.expect("attached")
        self.obey("ready")

    def wire(self, *, stopped: bool = False, ended: str = "", over: Sequence[int] = (), **about: Any) -> None:
        """Fresh rings for the front, and a peer at them, which may be `stopped` by a signal. `ended`: how preprocess
        ended in the generation before, and `over` which requests. `about`: more of the generation."""
        self.make_rings()
        self.start_peer()
        if stopped:
            self.peer.process.send_signal(signal.SIGSTOP)
        deaths = (Ended("preprocess", ended, self.generation, tuple(over)),) if ended else ()
        self.generation += 1
        fields, fds = Generation(self.generation, self.handles, deaths, **about).to_message()
        self.channel.send("generation", fds, **fields)
        self.hear("ready")

    def hear(self, event: str, timeout: float = 20) -> Any:
        """What the front says to its launcher, when it says this."""
        deadline = time.monotonic() + timeout
        while select.select([self.channel.fileno()], [], [], max(0, deadline - time.monotonic()))[0]:
            message = self.channel.receive()
            if message is not None and message.event == event:
                return message.fields
        raise AssertionError(f"the front did not say {event!r} within {timeout} s")

    def end_generation(self) -> None:
        """The peer dies, and the rings end for the front, too."""
        self.peer.stop()
        for ring in self.rings.values():
            ring.revoke()
            ring.__exit__()
        self.hear("waiting")

    def drain(self) -> None:
        """As its launcher would ask it to."""
        self.channel.send("drain")

    def end(self) -> None:
        """At once, as its launcher would."""
        self.front.process.send_signal(END)

    def obey(self, line: str) -> None:
        self.peer.tell(line)
        assert self.peer.expect("done") == line

    def generate(self, prompt: str, *, stream: bool = False, **parameters: Any) -> httpx.Response:
        path = "/models/llama2/generate_stream" if stream else "/models/llama2/generate"
        return self.http.post(path, json={"inputs": prompt, "parameters": parameters})

    def complete(self, prompt: Any, **body: Any) -> httpx.Response:
        return self.http.post("/v1/completions", json={"prompt": prompt, **body})

    def chat(self, content: Any, **body: Any) -> httpx.Response:
        messages = [{"role": "user", "content": content}]
        return self.http.post("/v1/chat/completions", json={"messages": messages, **body})

    def submitted(self, word: str) -> dict[str, Any]:
        """What arrived behind: the first request whose prompt has this word in it."""
        while True:
            seen = self.peer.expect("submit")
            if word in str(seen["prompt"]):
                return dict(seen)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def metric(self, name: str, **labels: str) -> float:
        """With these labels, and of the only replica, if it is of one."""
        from prometheus_client.parser import text_string_to_metric_families

        families = text_string_to_metric_families(self.http.get("/metrics").text)
        either = (labels, {"replica": "0", **labels})
        return next(s.value for f in families for s in f.samples if s.name == name and s.labels in either)

    def stop(self) -> None:
        self.http.close()
        for process in self.processes:
            process.stop()
        for ring in self.rings.values():
            ring.__exit__()
        self.channel.close()
        self._theirs.close()
        os.close(self.journal)
        self.stats.unlink()
        self.stats.close()


def post(body: dict[str, Any], path: str = "/models/llama2/generate", headers: str = "") -> bytes:
    """A request in bytes, for raw sockets."""
    content = json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n{headers}\r\n".encode() + content


def read_all(connection: socket.socket) -> bytes:
    """Until the other side closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def read_until(connection: socket.socket, mark: bytes) -> bytes:
    data = b""
    while mark not in data:
        part = connection.recv(65536)
        assert part, f"closed before {mark!r}: {data!r}"
        data += part
    return data


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Starts a front with settings of one's own."""
    made: list[Served] = []

    def start(*, ring_bytes: int = 1 << 20, **settings: Any) -> Served:
        made.append(Served(ring_bytes, **settings))
        return made[-1]

    yield start
    for served in made:
        served.stop()


@pytest.fixture(scope="module")
def shared() -> Iterator[Served]:
    """One front for all tests of a module that leave it as it was."""
    served = Served(1 << 20)
    yield served
    served.stop()
