"""What a front has of links, if anything."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from importlib.metadata import version

from prometheus_client.core import Metric

from pipeline.front.delivery.backend import Backend
from pipeline.front.links.node import RouterLinks
from pipeline.front.links.router import NodeLinks
from pipeline.front.metrics.links import node_metrics, router_metrics
from pipeline.front.settings import LinkSettings
from pipeline.link.hello import NODE, ROUTER, hello
from pipeline.runtime.generations import Control
from pipeline.stats import Counters, FrontCounter


class Links:
    """Of a router to its nodes, of a node to its routers, or none. Made inside a running loop. Raises
    CertificateError."""

    def __init__(
        self,
        settings: LinkSettings | None,
        backend: Backend,
        control: Control,
        counters: Counters,
        listeners: Sequence[socket.socket],
    ) -> None:
        self._listeners, self._control, self._counters = listeners, control, counters
        self.to_nodes: NodeLinks | None = None
        self._to_routers: RouterLinks | None = None
        if settings is None:
            return
        role = ROUTER if settings.max_nodes else NODE
        mine = hello(role, version("ringserve"), backend.number, settings.facts)
        if role == ROUTER:
            self.to_nodes = NodeLinks(backend, mine, settings, self._on_change, control.nodes)
        else:
            backend.guests = self._to_routers = RouterLinks(backend, mine, settings)

    async def run(self) -> None:
        """Until cancelled."""
        if self.to_nodes is not None:
            await self.to_nodes.run()
        elif self._to_routers is not None:
            await self._to_routers.serve(self._listeners)
        await asyncio.Event().wait()

    def _on_change(self, lanes: int) -> None:
        """A router accepts requests while so many replicas of its nodes do."""
        self._counters.set(FrontCounter.READY, int(lanes > 0))
        self._control.linked(lanes)

    def drain(self) -> None:
        """What routers have here goes on elsewhere."""
        if self._to_routers is not None:
            self._to_routers.close("the node is shutting down")

    def metrics(self) -> Iterator[Metric]:
        if self.to_nodes is not None:
            yield from node_metrics([link.figures for link in self.to_nodes.links])
        if self._to_routers is not None:
            yield from router_metrics(self._to_routers.figures)
