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
from pipeline.front.metrics.families import counter, gauge
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
        self._to_nodes: NodeLinks | None = None
        self._to_routers: RouterLinks | None = None
        if settings is None:
            return
        mine = hello(ROUTER if settings.nodes else NODE, version("ringserve"), backend.number, settings.facts)
        if settings.nodes:
            self._to_nodes = NodeLinks(backend, mine, settings, self._on_change)
        else:
            backend.guests = self._to_routers = RouterLinks(backend, mine, settings)

    async def run(self) -> None:
        """Until cancelled."""
        if self._to_nodes is not None:
            await self._to_nodes.run()
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
        if self._to_nodes is not None:
            yield from _of_nodes(self._to_nodes)
        if self._to_routers is not None:
            yield from _of_routers(self._to_routers)


def _of_nodes(links: NodeLinks) -> Iterator[Metric]:
    each = [({"node": link.address}, link) for link in links.links]
    yield gauge(
        "link_up", "1 while there is a link to the node, else 0", [(at, int(link.linked)) for at, link in each]
    )
    yield gauge("link_lanes_up", "Replicas of the node that serve", [(at, link.lanes_up) for at, link in each])
    yield counter(
        "links_made",
        "Links to the node so far: one, and one more whenever it broke",
        [(at, link.links) for at, link in each],
    )
    octets = [
        ({**at, "direction": direction}, getattr(link, direction))
        for at, link in each
        for direction in ("received", "sent")
    ]
    yield counter("link_bytes", "Bytes of frames, before they are encrypted", octets)


def _of_routers(links: RouterLinks) -> Iterator[Metric]:
    received, sent = links.traffic
    yield gauge("router_links", "Links from routers", links.count)
    yield gauge("router_requests", "Requests of routers that are here", links.requests)
    yield counter("links_made", "Links from routers so far", links.made)
    yield counter("links_refused", "Connections and links that were refused; the log says why", links.refused)
    both = [({"direction": "received"}, received), ({"direction": "sent"}, sent)]
    yield counter("link_bytes", "Bytes of frames, before they are encrypted", both)
