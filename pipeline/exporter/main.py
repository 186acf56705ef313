"""Reads spans from the socket that fronts write to, and sends them to the collector, many at a time.

One thread: while the collector does not answer nothing is read, the socket fills up, and fronts drop what there is no
room for. So everything is bounded, and a collector that is slow or gone costs no request anything.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import time
from typing import Any, Final

import msgspec
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from pipeline.exporter.spans import SpanMaker
from pipeline.exporter.specification import ExporterSpecification
from pipeline.runtime.generations import END
from pipeline.runtime.logs import configure_logging
from pipeline.runtime.readable import readable
from pipeline.runtime.stage import die_with_launcher, name_process
from pipeline.stats import ExporterCounter, StatsHandle, open_stats
from pipeline.wire.span import unpack_span
from pipeline.wire.topology import Topology

LONGEST = 64 << 10
"""Bytes of a record at most: what is longer is cut, and can't be read."""

_BATCH, _GATHER_S = 256, 0.5
_TIMEOUT_S: Final = 10.0
_LAST_TIMEOUT_S: Final = 0.5  # the launcher waits for it

log = logging.getLogger("ringserve.exporter")


class Exporter:
    """`counters`: words of the statistics page; see ExporterCounter. `ending`: a descriptor that can be read when it
    is to end."""

    def __init__(self, source: socket.socket, target: SpanExporter, counters: Any, ending: int) -> None:
        self._source, self._target, self._counters, self._ending = source, target, counters, ending
        self._source.setblocking(False)
        self._maker = SpanMaker()
        self._failing = False

    def run(self) -> None:
        """Until it is to end; what is left then, `export` sends."""
        while self.gather(_GATHER_S):
            self.export()

    def gather(self, seconds: float) -> bool:
        """A batch: as soon as one span is there, what comes within this time, too. False: it is to end, and this is
        all there is."""
        end = None
        for _ in range(_BATCH):
            left = None if end is None else max(0.0, end - time.monotonic())
            ready = readable([self._source.fileno(), self._ending], left)
            if self._ending in ready:
                self._drain()
                return False
            if not ready:
                return True
            self._add(self._source.recv(LONGEST))
            end = end or time.monotonic() + seconds
        return True

    def _drain(self) -> None:
        for _ in range(_BATCH):
            try:
                self._add(self._source.recv(LONGEST))
            except BlockingIOError:
                return

    def _add(self, record: bytes) -> None:
        try:
            self._maker.add(unpack_span(record))
        except (msgspec.DecodeError, msgspec.ValidationError):
            self._counters[ExporterCounter.FAILED] += 1
            log.error("a span could not be read", exc_info=True)

    def export(self, target: SpanExporter | None = None) -> None:
        spans = self._maker.take()
        if not spans:
            return
        requests = sum(span.parent is None or span.parent.is_remote for span in spans)
        try:
            done = (target or self._target).export(spans) is SpanExportResult.SUCCESS
        except Exception:
            log.exception("spans could not be sent")
            done = False
        self._counters[ExporterCounter.EXPORTED if done else ExporterCounter.FAILED] += requests
        self._report(done=done)

    def _report(self, *, done: bool) -> None:
        """When it changes: a collector may be gone for hours."""
        if not done and not self._failing:
            log.warning("the collector does not take spans; what it does not take is lost, and counted")
        elif done and self._failing:
            log.warning("the collector takes spans again")
        self._failing = not done


def run_exporter(fd: int) -> int:
    asked = ExporterSpecification(**json.loads(os.pread(fd, 1 << 20, 0)))
    die_with_launcher(asked.death_fd)
    name_process("exporter")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ending, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(END, lambda *_: None)
    configure_logging("exporter", level=asked.log_level, form=asked.log_format)
    logging.getLogger("opentelemetry").addHandler(logging.NullHandler())  # it says everything many times
    logging.getLogger("opentelemetry").propagate = False
    page = open_stats(StatsHandle(asked.stats_fd, Topology(**asked.topology)))
    target = OTLPSpanExporter(endpoint=asked.endpoint, timeout=_TIMEOUT_S)
    exporter = Exporter(socket.socket(fileno=asked.socket_fd), target, page.views.exporter, ending)
    exporter.run()
    exporter.export(OTLPSpanExporter(endpoint=asked.endpoint, timeout=_LAST_TIMEOUT_S))
    return 0
