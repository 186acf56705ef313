"""The HTTP server: accepts connections, serves until the launcher ends it, and finishes what it has begun."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import uvloop

import ipc
from model.tokenizer import Vocabulary
from pipeline.front.api.admin_routes import AdminRoutes
from pipeline.front.api.anthropic.routes import AnthropicRoutes
from pipeline.front.api.cancel_routes import CancelRoutes
from pipeline.front.api.generate_routes import GenerateRoutes
from pipeline.front.api.info_routes import InfoRoutes
from pipeline.front.api.node_routes import NodeRoutes
from pipeline.front.api.ollama.routes import OllamaRoutes
from pipeline.front.api.stream_routes import StreamRoutes
from pipeline.front.api.tokenize_routes import TokenizeRoutes
from pipeline.front.app import Front
from pipeline.front.delivery.admission import Admission
from pipeline.front.delivery.backend import Backend
from pipeline.front.delivery.follow import follow
from pipeline.front.delivery.generation import Delivery
from pipeline.front.delivery.kept.answers import KeptAnswers
from pipeline.front.delivery.routing.policies import keep_weighing, make_router
from pipeline.front.delivery.tracing import Tracing
from pipeline.front.delivery.weights import WeightsControl
from pipeline.front.http.access import ApiKeys
from pipeline.front.http.connection import Connection, Serving
from pipeline.front.http.exchange import BodyMemory
from pipeline.front.http.responses import Outbox
from pipeline.front.http.throttle import throttled
from pipeline.front.http.worker import Worker
from pipeline.front.links.links import Links
from pipeline.front.metrics.trace import Spans
from pipeline.front.page.routes import PageRoutes
from pipeline.front.settings import FrontSettings
from pipeline.runtime.generations import END, Control
from pipeline.runtime.logs import configure_logging
from pipeline.stats import (
    AdapterCounters,
    Counters,
    FrontCounter,
    Histograms,
    KeyCounters,
    RequestHistogram,
    RingEnds,
    StatsHandle,
    StatsPage,
    StatsReader,
)
from pipeline.wire.topology import FRONT, StageSpec

log = logging.getLogger("ringserve.front")

_BACKLOG = 2048  # connections that wait to be accepted
_BEAT_S = 0.1
_LAST_WRITES_S = 0.05
_FLUSH_S = 1.0  # at the end, for answers that are complete or broken off to be written to their clients


def run_front(
    settings: FrontSettings,
    control: Control,
    stats: StatsHandle,
    listeners: Sequence[socket.socket],
    tokenizer: Vocabulary | None = None,
    keys: ApiKeys | None = None,
    front: int = 0,
    spans: ipc.RingHandle | None = None,
    link_listeners: Sequence[socket.socket] = (),
    journal_fd: int | None = None,
) -> None:
    """Serve on sockets that listen, until the launcher's signal or the end of a drain, which it asks for.

    `control` brings the rings of one generation after the other. `tokenizer` names tokens where log-probabilities are
    asked for. `keys` may be replaced while the front runs; without any, every client that can connect is served.
    `front` is its number among several. `spans`: the ring of those for the exporter, if there is one. Routers link
    to `link_listeners`, where it is a node's. `journal_fd`: a log, perhaps of a front that has died; see `Journal`.
    """
    with (
        contextlib.closing(StatsPage.from_handle(stats)) as page,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        spec = page.topology.find(FRONT, rank=front)
        configure_logging(spec.key, level=settings.log_level, form=settings.log_format)
        given = keys or ApiKeys()
        runner.run(
            _serve(spec, settings, control, page, listeners, tokenizer, given, spans, link_listeners, journal_fd)
        )


async def _serve(
    spec: StageSpec,
    settings: FrontSettings,
    control: Control,
    page: StatsPage,
    listeners: Sequence[socket.socket],
    tokenizer: Vocabulary | None,
    keys: ApiKeys,
    spans_ring: ipc.RingHandle | None,
    link_listeners: Sequence[socket.socket],
    journal_fd: int | None,
) -> None:
    counters, stats, spans = Counters(page, spec.key), StatsReader(page), Spans()
    times, ends = Histograms(page, RequestHistogram, spec.rank), RingEnds(page, spec.key)
    router = make_router(settings)
    backend = Backend(settings, counters, stats, Outbox(times, spans), ends, router)
    admission, links = Admission(), Links(settings.link, backend, control, counters, link_listeners)
    parser = Worker("parser")
    adapters = AdapterCounters(page, spec.rank, settings.adapters)
    tracing = None if spans_ring is None else Tracing(spans_ring, counters)
    keys_used = KeyCounters(page, spec.rank)
    kept = KeptAnswers(settings, journal_fd)
    delivery = Delivery(settings, backend, admission, counters, adapters, times, stats, keys_used, tracing, kept)
    generate = GenerateRoutes(delivery, tokenizer, parser)
    weights = WeightsControl(control, backend)
    info = InfoRoutes(settings, backend, admission, stats, spans, ends, links.metrics)
    shown = PageRoutes(settings, stats, ends)
    tokenize = TokenizeRoutes(settings, tokenizer, parser, backend)
    ollama = OllamaRoutes(settings, backend, tokenizer, generate)
    anthropic = AnthropicRoutes(settings, tokenizer, generate, tokenize)
    cancel, streams, nodes = CancelRoutes(delivery.live), StreamRoutes(kept), NodeRoutes(settings, links.to_nodes)
    app = Front(
        settings,
        generate,
        tokenize,
        info,
        shown,
        keys,
        ollama,
        anthropic,
        cancel,
        AdminRoutes(settings, weights, backend, links.to_nodes),
        streams,
        nodes,
    )

    def on_shutdown() -> None:
        shown.feed.close()
        kept.stop()

    server = Server(app, settings, admission, counters, backend.announce, on_shutdown)

    def drain(_: Mapping[str, Any]) -> None:
        links.drain()
        server.drain()

    control.on("drain", drain)
    following = [asyncio.create_task(each) for each in (follow(control, backend, spec), links.run())]
    for task in following:
        task.add_done_callback(lambda _: server.end())
    weighing = asyncio.create_task(keep_weighing(router, stats, settings)) if page.topology.replicas > 1 else None
    kept.restore(app.maker, keys.of, backend.new_id)
    counters.set_ready()
    try:
        with throttled(logging.getLogger("ringserve.front")):
            await server.serve(listeners)
    finally:
        counters.set(FrontCounter.READY, 0)
        parser.close()
        links.drain()
        for task in (*following, *filter(None, [weighing])):
            task.cancel()
        await backend.close()
        await server.close_connections()
        kept.close()
        for task in following:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if tracing is not None:
            tracing.close()


class Server:
    """Accepts and closes connections. While it drains it accepts connections and refuses requests that generate; then
    it closes the connections and stops. `launched`: a launcher gives the order to drain. Made inside a running
    loop."""

    def __init__(
        self,
        app: Front,
        settings: FrontSettings,
        admission: Admission,
        counters: Counters,
        announce: Callable[[], None],
        on_shutdown: Callable[[], None],
    ) -> None:
        self._serving = Serving(settings, app, BodyMemory(settings), announce)
        self._settings, self._admission, self._counters = settings, admission, counters
        self._on_shutdown = on_shutdown
        self._draining: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._flush_s = _FLUSH_S

    async def serve(self, listeners: Sequence[socket.socket]) -> None:
        """Until `end`, or the end of a drain."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(END, self.end)
        try:
            accepting = [
                await loop.create_server(lambda: Connection(self._serving), sock=listener, backlog=_BACKLOG)
                for listener in listeners
            ]
            await self._beat()
            for server in accepting:
                server.close()
            await self._shut_down()
        finally:
            loop.remove_signal_handler(END)

    async def _beat(self) -> None:
        """Ten times a second, so that the launcher can see that the event loop runs."""
        while not self._stopping.is_set():
            self._counters.add(FrontCounter.BEAT)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BEAT_S):
                    await self._stopping.wait()

    async def _shut_down(self) -> None:
        """Endless streams are ended, or they would hold up the drain; connections that take longer are aborted."""
        self._on_shutdown()
        for connection in list(self._serving.connections):
            connection.shutdown()
        await asyncio.sleep(_BEAT_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._flush_s):
                while self._serving.connections or self._serving.tasks:
                    await asyncio.sleep(_BEAT_S)
        for task in self._serving.tasks:
            task.cancel()

    def drain(self) -> None:
        """Start draining; twice is harmless."""
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        log.info("draining: running requests have %g s to finish", self._settings.drain_timeout_s)
        await self._admission.drain(self._settings.drain_timeout_s)
        self._stopping.set()

    def end(self) -> None:
        """Stop at once: running requests get an error."""
        self._flush_s = 0.0
        self._stopping.set()

    async def close_connections(self) -> None:
        """Those that clients have not closed: first after their last bytes are written, then at once."""
        for end in ("close", "abort"):
            await asyncio.sleep(_LAST_WRITES_S)
            for connection in list(self._serving.connections):
                getattr(connection.transport, end)()
        await asyncio.sleep(0)
        self._serving.resets.close()
