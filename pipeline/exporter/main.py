"""Reads spans from the rings that fronts write to, and sends them to the collector, many at a time.

One thread: while the collector does not answer nothing is read, the rings fill up, and fronts drop what there is no
room for. So everything is bounded, and a collector that is slow or gone costs no request anything.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

import ipc
from pipeline.exporter.spans import SpanMaker
from pipeline.exporter.specification import ExporterSpecification
from pipeline.runtime.generations import END, handle_of
from pipeline.runtime.logs import configure_logging
from pipeline.runtime.readable import readable
from pipeline.runtime.stage import die_with_launcher, name_process
from pipeline.stats import ExporterCounter, StatsHandle, open_stats
from pipeline.wire.span import unpack_span
from pipeline.wire.topology import Topology

_BATCH, _GATHER_S = 256, 0.5
_TIMEOUT_S: Final = 10.0
_LAST_TIMEOUT_S: Final = 0.5  # the launcher waits for it

log = logging.getLogger("ringserve.exporter")


class Exporter:
    """`rings`: one of each front. `counters`: words of the statistics page; see ExporterCounter. `ending`: an
    eventfd."""

    def __init__(self, rings: Sequence[ipc.ByteRing], target: SpanExporter, counters: Any, ending: int) -> None:
        self._sources = [ring.consumer(label="exporter") for ring in rings]
        ends = [(source, ring.data_fd()) for source, ring in zip(self._sources, rings, strict=True)]
        self._selector, self._ending = ipc.RingSelector(ends, [ending]), ending
        self._target, self._counters = target, counters
        self._maker = SpanMaker()
        self._failing = self._over = False

    def end(self) -> None:
        """From a signal handler: `run` returns soon."""
        self._over = True
        os.eventfd_write(self._ending, 1)

    def run(self) -> None:
        """Until it is to end; what is left then, `export` sends."""
        while not self._over:
            self._wait()
            if not self._over:
                readable([self._ending], _GATHER_S)  # others come meanwhile
            while self.take() and not self._over:
                self.export()
        while self.take():
            pass

    def _wait(self) -> None:
        """For a span, or the end."""
        try:
            self._selector.wait()
        except (ipc.PeerDied, ipc.RingClosed):  # the next front goes on with the same ring
            readable([self._ending], _GATHER_S)

    def take(self) -> bool:
        """Some, if there are any."""
        taken = 0
        for source in self._sources:
            with contextlib.suppress(ipc.RingTimeout, ipc.PeerDied, ipc.RingClosed):  # it is empty
                records = source.read_many(_BATCH, 0)
                for record in records:
                    self._add(record)
                taken += len(records)
        return taken > 0

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
    configure_logging("exporter", level=asked.log_level, form=asked.log_format)
    logging.getLogger("opentelemetry").addHandler(logging.NullHandler())  # it says everything many times
    logging.getLogger("opentelemetry").propagate = False
    page = open_stats(StatsHandle(asked.stats_fd, Topology(**asked.topology)))
    target = OTLPSpanExporter(endpoint=asked.endpoint, timeout=_TIMEOUT_S)
    rings = [ipc.ByteRing.from_handle(handle_of(fds)) for fds in asked.rings]
    exporter = Exporter(rings, target, page.views.exporter, os.eventfd(0, os.EFD_NONBLOCK))
    signal.signal(END, lambda *_: exporter.end())
    exporter.run()
    exporter.export(OTLPSpanExporter(endpoint=asked.endpoint, timeout=_LAST_TIMEOUT_S))
    return 0
