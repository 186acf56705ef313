"""All metrics of a server, read from the statistics page when Prometheus asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import version

from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from pipeline.front.metrics.families import gauge, gauges
from pipeline.front.metrics.processes import process_metrics
from pipeline.front.metrics.requests import request_metrics
from pipeline.front.metrics.rings import ring_metrics
from pipeline.front.metrics.scheduling import scheduling_metrics
from pipeline.front.metrics.steps import step_metrics
from pipeline.front.metrics.supervision import supervision_metrics
from pipeline.front.settings import FrontSettings
from pipeline.stats import RingEnds, StatsReader

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()


class StatsCollector(Collector):
    """Nothing is kept between two scrapes. `ends` are those of the front, which has no steps to copy them after."""

    def __init__(self, stats: StatsReader, settings: FrontSettings, ends: RingEnds | None = None) -> None:
        self._stats, self._settings, self._ends = stats, settings, ends

    def text(self) -> bytes:
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        if self._ends is not None:
            self._ends.copy()
        for _, metrics in self.sections():
            yield from metrics

    def sections(self) -> Iterator[tuple[str, Iterable[Metric]]]:
        yield "server", self._server()
        yield "requests", request_metrics(self._stats)
        yield "scheduling", scheduling_metrics(self._stats)
        yield "steps", step_metrics(self._stats)
        yield "rings", ring_metrics(self._stats)
        yield "processes", process_metrics(self._stats)
        yield "supervision", supervision_metrics(self._stats)

    def _server(self) -> Iterator[Metric]:
        settings = self._settings
        labels = (version("ringserve"), settings.model_name, settings.runner)
        yield gauges("info", "Always 1; its labels say what is served", ("version", "model", "runner"), [(labels, 1)])
        yield gauge("ready", "1 while requests are taken", int(self._stats.ready))
        yield gauge("max_rows", "Rows of the batch there are", settings.max_rows)
        yield gauge("max_model_len", "Tokens that a request may have, prompt and answer", settings.max_length)
