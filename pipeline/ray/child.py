"""A RingServe process of an actor: it ends with the actor, however that does."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import selectors
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.launcher.api_keys import API_KEY

_ASK_S = 5.0
_KILL_S = 5.0
_RAYS = ("OMP_NUM_THREADS",)
"""Ray sets these by an actor's share of the CPUs; a server divides what it has itself."""


class ChildError(Exception):
    """The process has ended, or does not answer."""


class Child:
    """`arguments` of `python -m pipeline.launch`. What it writes goes where this process's errors go."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._ready, ready = os.pipe()
        tied, self._tie = os.pipe()
        options = ("--ready-fd", str(ready), "--exit-with-fd", str(tied))
        environment = {name: value for name, value in os.environ.items() if name not in _RAYS}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "pipeline.launch", *arguments, *options],
                pass_fds=(ready, tied),
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # a signal to the actor's group is not meant for it
            )
        except BaseException:
            self._close()
            raise
        finally:
            os.close(ready)
            os.close(tied)
        self.told: Mapping[str, Sequence[str]] = {}
        self._well = time.monotonic()  # when `/health` last said so

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self, timeout_s: float) -> Mapping[str, Sequence[str]]:
        """Its URLs, as `--ready-fd` tells them. Raises ChildError."""
        if not self.becomes_ready(timeout_s):
            raise ChildError(f"RingServe was not ready after {timeout_s:g} s")
        return self.told

    def becomes_ready(self, timeout_s: float) -> bool:
        """Within this time; then `told` has its URLs. Raises ChildError if it has ended."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._ready, selectors.EVENT_READ)
            if not selector.select(timeout_s):
                return False
        if not (line := os.read(self._ready, 1 << 16)):
            raise ChildError(f"RingServe could not start: exit status {self._process.wait(_KILL_S)}; see its log")
        self.told, self._well = json.loads(line), time.monotonic()
        return True

    @property
    def operators(self) -> str:
        """The base URL of the operators' port."""
        return self.told["metrics"][0]

    def check(self, unwell_s: float) -> None:
        """Raises ChildError if it has ended, or `/health` has said no for so long: its launcher starts stages anew by
        itself, which is done sooner than a whole server."""
        if (status := self._process.poll()) is not None:
            raise ChildError(f"RingServe has ended: exit status {status}")
        try:
            self.ask("/health")
        except ChildError:
            if time.monotonic() - self._well > unwell_s:
                raise
        else:
            self._well = time.monotonic()

    def ask(self, path: str, body: object = None) -> bytes:
        """On the operators' port: GET, or PUT with a body as JSON. Raises ChildError."""
        data = None if body is None else json.dumps(body).encode()
        method, headers = ("GET", {}) if data is None else ("PUT", {"content-type": "application/json"})
        if key := os.environ.get(API_KEY):
            headers["authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.operators + path, data, headers, method=method)  # noqa: S310 - http
        try:
            with urllib.request.urlopen(request, timeout=_ASK_S) as answer:  # noqa: S310 - likewise
                content: bytes = answer.read()
                return content
        except (OSError, http.client.HTTPException) as error:
            raise ChildError(f"{method} {path}: {error}") from error

    def metrics(self) -> dict[str, list[float]]:
        """Values of all series of a metric, by its name. Raises ChildError."""
        found: dict[str, list[float]] = {}
        for line in self.ask("/metrics").decode().splitlines():
            if not line.startswith("#"):
                series, _, value = line.rpartition(" ")
                found.setdefault(series.partition("{")[0].removeprefix("ringserve_"), []).append(float(value))
        return found

    def end(self, timeout_s: float) -> int:
        """SIGTERM: it drains, for so long at most. Returns its exit status; twice is harmless."""
        self._process.terminate()
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait(_KILL_S)
        finally:
            self._close()

    def _close(self) -> None:
        for fd in (self._ready, self._tie):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._ready = self._tie = -1


def load_of(metrics: Mapping[str, Sequence[float]], target: float) -> float:
    """How many nodes like this one its requests are worth, if each is to have `target` of its rows in use: those that
    run and those that wait."""
    running = metrics["num_requests_running"]
    rows = metrics["max_rows"][0] * len(running)
    return (sum(running) + sum(metrics["num_requests_waiting"])) / (target * rows)


def described(answer: bytes) -> list[dict[str, Any]]:
    """What a router says of its nodes."""
    nodes: list[dict[str, Any]] = json.loads(answer)["data"]
    return nodes


def links_of(nodes: Iterable[Mapping[str, Any]]) -> dict[str, bool]:
    """Of those, as a router describes them: whether there is a link to it, also while none of its replicas is up."""
    return {each["node"]: each["state"] == "linked" for each in nodes}


def free_port(host: str, ports: Sequence[int]) -> int | None:
    """The first that can be listened on; None if there is none now."""
    for port in ports:
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return port
    return None
