"""The exporter of spans, beside the stages: it may die and come back, and nothing else notices.

The socket between fronts and exporter is made once and stays open here, so what is in it waits for the next exporter,
and a front that writes never finds it closed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict

from pipeline.config import Configuration
from pipeline.exporter.specification import ExporterSpecification
from pipeline.host.facts import HostError
from pipeline.launcher.child import anonymous_file, start_process
from pipeline.runtime.generations import END
from pipeline.stats import StatsPage

log = logging.getLogger("ringserve.launcher")

LOOK_S = 1.0
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.5, 30.0
_WELL_S = 60.0  # after so long a death counts as the first
_GRACE_S = 1.5
_NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


class ExporterProcess:
    """`fd`: where fronts write spans to. Raises HostError where its packages are missing, OSError."""

    def __init__(self, config: Configuration, page: StatsPage) -> None:
        _require_packages()
        self._config, self._page = config, page
        theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._fronts, self._exporters = theirs, ours
        self._death: tuple[int, ...] = os.pipe()  # to be read, and to be written; breaks when the launcher dies
        self.due = 0.0
        self._began, self._delay_s = 0.0, _FIRST_DELAY_S
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    @property
    def fd(self) -> int:
        return self._fronts.fileno()

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
                self._process = start_process(command, fd, [asked.socket_fd, asked.death_fd, asked.stats_fd])
        except OSError as error:
            log.warning("the exporter of spans could not be started: %s", error)

    def _specification(self) -> ExporterSpecification:
        pipeline = self._config.pipeline
        assert pipeline.otlp_endpoint is not None  # else there is no exporter
        return ExporterSpecification(
            endpoint=pipeline.otlp_endpoint,
            socket_fd=self._exporters.fileno(),
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
        for end in (self._fronts, self._exporters):
            end.close()
        for fd in self._death:
            os.close(fd)
        self._death = ()


def _require_packages() -> None:
    for name in _NEEDED:
        found = None
        with contextlib.suppress(ModuleNotFoundError):  # of what the name begins with
            found = importlib.util.find_spec(name)
        if found is None:
            raise HostError("pipeline.otlp_endpoint needs OpenTelemetry's packages: pip install 'ringserve[otel]'")
