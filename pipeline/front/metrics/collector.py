"""All metrics of a server, read from the statistics page at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version

from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from pipeline.front.metrics.families import gauge
from pipeline.front.metrics.processes import process_metrics, supervision_metrics
from pipeline.front.metrics.requests import request_metrics, scheduling_metrics
from pipeline.front.metrics.rings import ring_metrics
from pipeline.front.metrics.steps import step_metrics
from pipeline.front.metrics.vllm import cache_config, renamed
from pipeline.front.settings import FrontSettings
from pipeline.stats import RingEnds, StatsReader

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()


class _One(Collector):
    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family


class StatsCollector(Collector):
    """Keeps nothing between two scrapes. `ends` are the front's, which are copied here: it has no steps. `more`: what
    is not on the statistics page; `weights`: replicas with the ids of those that they compute with."""

    def __init__(
        self,
        stats: StatsReader,
        settings: FrontSettings,
        ends: RingEnds | None = None,
        more: Callable[[], Iterable[Metric]] = tuple,
        weights: Callable[[], Iterable[tuple[int, str]]] = tuple,
    ) -> None:
        self._stats, self._settings, self._ends, self._more = stats, settings, ends, more
        self._weights = weights

    def pieces(self) -> Iterator[bytes]:
        """Of the text, a family each: with many replicas all of them take longer than tokens should wait."""
        for family in self.collect():
            yield generate_latest(_One(family))

    def collect(self) -> Iterator[Metric]:
        if self._ends is not None:
            self._ends.copy()
        families: list[Metric] = []
        for _, section in self.sections():
            for family in section:
                families.append(family)
                yield family
        if self._settings.vllm_metrics:
            yield from renamed(families, self._settings.model_name)
            yield cache_config(self._settings)

    def sections(self) -> Iterator[tuple[str, Iterable[Metric]]]:
        yield "server", self._server()
        yield (
            "requests",
            request_metrics(self._stats, self._settings.adapters, by_key=self._settings.metrics_port is not None),
        )
        yield "scheduling", scheduling_metrics(self._stats)
        yield "steps", step_metrics(self._stats)
        yield "rings", ring_metrics(self._stats)
        yield "processes", process_metrics(self._stats)
        yield "supervision", supervision_metrics(self._stats)
        yield "links", self._more()

    def _server(self) -> Iterator[Metric]:
        settings = self._settings
        labels = {"version": version("ringserve"), "model": settings.model_name, "runner": settings.runner}
        meaning = "Always 1; its labels are the server's version, model and engine"
        yield gauge("info", meaning, [(labels, 1)])
        yield gauge("ready", "1 while requests are accepted, else 0", int(self._stats.ready))
        replicas = range(self._stats.topology.replicas)
        each = [({"replica": str(replica)}, int(self._stats.is_ready(replica))) for replica in replicas]
        yield gauge("replica_ready", "1 while the replica computes requests, else 0", each)
        weights = [({"replica": str(replica), "weights": one}, 1) for replica, one in self._weights()]
        yield gauge("weights_info", "Always 1; its label is the id of the weights that the replica has", weights)
        yield gauge(
            "max_rows", "Rows of a replica's batch: sequences that can run at the same time", settings.max_rows
        )
        yield gauge("max_model_len", "Most tokens of a sequence, prompt and answer together", settings.max_length)
