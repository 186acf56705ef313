"""The exporter of spans, beside the stages: it may die and come back, and nothing else notices.

The rings between fronts and exporter are made once and stay here, so what is in them waits for the next exporter.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import ipc
from pipeline.config import Configuration
from pipeline.exporter.specification import ExporterSpecification
from pipeline.host.facts import HostError
from pipeline.launcher.child import anonymous_file, start_process
from pipeline.runtime.generations import END
from pipeline.stats import StatsPage
from pipeline.wire.topology import FRONT, StageSpec

log = logging.getLogger("ringserve.launcher")

RING_BYTES = 256 << 10  # some 600 spans
LOOK_S = 1.0
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.5, 30.0
_WELL_S = 60.0  # after so long a death counts as the first
_GRACE_S = 1.5
_NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


class ExporterProcess:
    """`rings`: where fronts write spans to, by their keys. Raises HostError where its packages are missing, IpcError,
    OSError."""

    def __init__(self, config: Configuration, page: StatsPage) -> None:
        _require_packages()
        self._config, self._page = config, page
        self.rings = {front.key: _make_ring(front) for front in page.topology.every(FRONT)}
        self._death: tuple[int, ...] = os.pipe()  # to be read, and to be written; breaks when the launcher dies
        self.due = 0.0
        self._began, self._delay_s = 0.0, _FIRST_DELAY_S
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def look(self) -> None:
        """Starts it again if it has died, after a while that grows. Never waits, never fails."""
        now = time.monotonic()
        if now < self.due:
            return
        self.due = now + LOOK_S
        if self._process is None:
            self._start()
        elif (status := self._process.poll()) is not None:
            self._process = None
            if now - self._began > _WELL_S:
                self._delay_s = _FIRST_DELAY_S
            self.due = now + self._delay_s
            log.warning("the exporter of spans ended (%d); starting it again in %g s", status, self._delay_s)
            self._delay_s = min(2 * self._delay_s, _LONGEST_DELAY_S)

    def _start(self) -> None:
        self._began = time.monotonic()
        self.due = self._began + LOOK_S
        asked, command = self._specification(), [sys.executable, "-P", "-m", "pipeline.exporter"]
        try:
            with anonymous_file("exporter", asked.to_json()) as fd:
                fds = [*itertools.chain(*asked.rings), asked.death_fd, asked.stats_fd]
                self._process = start_process(command, fd, fds)
        except OSError as error:
            log.warning("the exporter of spans could not be started: %s", error)

    def _specification(self) -> ExporterSpecification:
        pipeline = self._config.pipeline
        assert pipeline.otlp_endpoint is not None  # else there is no exporter
        return ExporterSpecification(
            endpoint=pipeline.otlp_endpoint,
            rings=tuple(ring.handle.fds for ring in self.rings.values()),
            death_fd=self._death[0],
            stats_fd=self._page.segment.fd,
            topology=asdict(self._page.topology),
            log_level=pipeline.log.level,
            log_format=pipeline.log.format,
        )

    def close(self) -> None:
        """After the fronts: it sends what they have left. Twice is harmless."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(END)
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
        for ring in self.rings.values():
            ring.close()
        for fd in self._death:
            os.close(fd)
        self._death = ()


def _make_ring(front: StageSpec) -> ipc.ByteRing:
    ring = ipc.ByteRing.create(f"spans_{front.rank}", capacity=RING_BYTES)
    ring.segment.unlink()
    return ring


def _require_packages() -> None:
    for name in _NEEDED:
        found = None
        with contextlib.suppress(ModuleNotFoundError):  # of what the name begins with
            found = importlib.util.find_spec(name)
        if found is None:
            raise HostError("pipeline.otlp_endpoint needs OpenTelemetry's packages: pip install 'ringserve[otel]'")
