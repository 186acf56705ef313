"""Starts the stages, waits until each is ready, supervises, drains, cleans up."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

import ipc
from pipeline.child import Child, StartError
from pipeline.config import Configuration
from pipeline.listening import address, exposed, listen, listen_for_metrics
from pipeline.runners import make_runner, shapes_of
from pipeline.stage import NAMES, Specification
from pipeline.stats import StatsPage
from pipeline.wiring import Wiring

START_TIMEOUT_S = 1800.0
"""A 7B checkpoint from a slow disk takes minutes; a stage that dies is noticed at once anyway."""

_STOP_GRACE_S = 1.5

OPEN_TO_ALL = (
    "warning: other machines may reach this server, and no API key is needed to use it; "
    "set RINGSERVE_API_KEY or pipeline.api_keys_file, or listen on 127.0.0.1"
)


class Supervisor:
    """One server, from start to end."""

    def __init__(self, config: Configuration, api_keys: tuple[str, ...] = ()) -> None:
        self.config = config
        self._api_keys = api_keys  # digests; for the front alone
        self._children: list[Child] = []
        self._signals = 0
        self._began = time.monotonic()

    def run(self) -> int:
        """Exit status. Raises ModelError, IpcError and PortInUseError for what can't be started."""
        with ExitStack() as stack:
            self._wake = stack.enter_context(_wake_up_pipe())
            stack.enter_context(self._caught_signals())
            for name in ipc.sweep_segments():
                say(f"removed {name}, left behind by a launcher that was killed")
            sockets = [stack.enter_context(listener) for listener in listen(self.config)]
            self._metrics = [stack.enter_context(listener) for listener in listen_for_metrics(self.config)]
            stack.callback(self._stop)
            self._start(stack, sockets)
            if not self._until_ready():
                return 1 if not self._signals else 0
            self._announce(sockets)
            return self._supervise()

    # ---- start ----------------------------------------------------------------------------------------------

    def _start(self, stack: ExitStack, sockets: list[socket.socket]) -> None:
        runner = make_runner(self.config)
        shapes = shapes_of(self.config, runner)
        facts = runner.facts
        cache = f"{facts.num_blocks} KV blocks of {facts.block_size} tokens"
        say(f"{facts.name} on {facts.device}: {shapes.max_rows} rows, {cache}")
        self._wiring = Wiring.create(self.config, shapes)
        stack.callback(self._wiring.close)
        self._stats = StatsPage.create()
        stack.callback(self._stats.segment.close)
        stack.callback(self._stats.segment.unlink)
        config_fd = stack.enter_context(_anonymous_file("configuration", self.config.to_yaml().encode()))
        death_read, self._death_write = os.pipe()
        stack.callback(os.close, self._death_write)
        stack.callback(os.close, death_read)
        for name in NAMES:
            handles = self._wiring.handles(name)
            status_read, status_write = os.pipe()
            specification = Specification(
                config_fd=config_fd,
                status_fd=status_write,
                death_fd=death_read,
                stats_fd=self._stats.segment.fd,
                listen_fds=tuple(listener.fileno() for listener in sockets) if name == "front" else (),
                metrics_fds=tuple(listener.fileno() for listener in self._metrics) if name == "front" else (),
                api_keys=self._api_keys if name == "front" else (),
                rings={ring: handle.to_text() for ring, handle in handles.items()},
                shapes={key: getattr(shapes, key) for key in shapes.__slots__},
            )
            fds = [config_fd, status_write, death_read, self._stats.segment.fd]
            fds += [fd for handle in handles.values() for fd in handle.fds]
            fds += [*specification.listen_fds, *specification.metrics_fds]
            with _anonymous_file("specification", specification.to_json()) as fd:
                child = Child.start(name, fd, fds, status_read)
            os.close(status_write)
            self._children.append(child)

    def _until_ready(self) -> bool:
        """One line per stage while it works on it; False when one of them could not be started."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not all(child.ready for child in self._children):
            for child in self._wait(deadline):
                try:
                    child.read_status()
                except StartError as error:
                    say(f"{child.name} could not start: {error}")
                    return False
            if self._signals:
                say("interrupted while starting")
                return False
            if time.monotonic() > deadline:
                slow = ", ".join(child.name for child in self._children if not child.ready)
                say(f"{slow} did not become ready within {START_TIMEOUT_S:.0f} s")
                return False
        self._wiring.unlink()
        self._stats.segment.unlink()
        return True

    def _announce(self, sockets: list[socket.socket]) -> None:
        took = time.monotonic() - self._began
        say(f"ready after {took:.1f} s")
        route = self.config.serving_config.model_route
        if not self._api_keys and any(map(exposed, sockets)):
            say(OPEN_TO_ALL)
        for listener in self._metrics:
            say(f"metrics at {address(listener)}/metrics")
        for listener in sockets:
            say(f"listening on {address(listener)}")
        key = " -H 'authorization: Bearer …'" if self._api_keys else ""
        say(
            f"try: curl {address(sockets[-1])}/models/{route}/generate -H 'content-type: application/json'{key} "
            """-d '{"inputs": "What is a ring buffer?", "parameters": {"max_new_tokens": 60}}'"""
        )

    # ---- run ------------------------------------------------------------------------------------------------

    def _supervise(self) -> int:
        """Until a signal (then drain) or a death (then everything ends)."""
        while not self._signals:
            for child in self._wait(None):
                if (status := child.exit_status()) is not None:
                    say(f"{child.name} (pid {child.pid}) {describe(status)}: stopping the server")
                    return 1
        return self._drain()

    def _drain(self) -> int:
        """The front stops accepting and ends when its requests have; a second signal ends everything at once."""
        limit = self.config.pipeline.drain_timeout_s
        say(f"draining: requests under way have {limit:.0f} s; a second signal stops at once")
        front = next(child for child in self._children if child.name == "front")
        front.signal(signal.SIGTERM)
        deadline, seen = time.monotonic() + limit + 1, self._signals
        while front.exit_status() is None and time.monotonic() < deadline and self._signals == seen:
            for child in self._wait(deadline):
                if child is not front and (status := child.exit_status()):  # 0: the front is done, and so is it
                    say(f"{child.name} (pid {child.pid}) {describe(status)} while draining")
                    return 1
        return 0

    def _wait(self, deadline: float | None) -> Iterator[Child]:
        """Children that said something or died; also returns after a signal."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            for child in self._children:
                for fd in child.fds():
                    selector.register(fd, selectors.EVENT_READ, child)
            timeout = None if deadline is None else max(deadline - time.monotonic(), 0)
            events = selector.select(timeout)
        for child in dict.fromkeys(key.data for key, _ in events if key.data is not None):
            yield child
        if any(key.data is None for key, _ in events):
            os.read(self._wake, 4096)

    # ---- end ------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Everybody: first asked, then made to."""
        for child in self._children:
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_GRACE_S
        for child in self._children:
            child.end(deadline)

    @contextmanager
    def _caught_signals(self) -> Iterator[None]:
        caught = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._on_signal) for number in caught}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1


def say(text: str) -> None:
    """A line for the operator."""
    print(f"ringserve: {text}", file=sys.stderr, flush=True)


def describe(status: int) -> str:
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}" if status else "ended"


@contextmanager
def _anonymous_file(name: str, content: bytes) -> Iterator[int]:
    fd = os.memfd_create(f"ringserve-{name}", os.MFD_CLOEXEC)
    try:
        os.write(fd, content)
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _wake_up_pipe() -> Iterator[int]:
    """A descriptor that becomes readable when a signal arrives: a wait can't miss one."""
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield read
    finally:
        signal.set_wakeup_fd(before)
        os.close(read)
        os.close(write)
