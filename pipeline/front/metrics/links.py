"""Metrics of links: of a router to its nodes, and of a node to its routers. Counters begin anew with the front."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.core import Metric

from pipeline.front.metrics.families import counter, gauge

_BYTES = "bytes of frames, before they are encrypted"


@dataclass(frozen=True, slots=True)
class NodeFigures:
    """Of a router's link to one node; bytes and links so far."""

    address: str
    linked: bool
    lanes_up: int
    links: int
    received: int
    sent: int


@dataclass(frozen=True, slots=True)
class RouterFigures:
    """Of a node's links to all its routers."""

    links: int
    requests: int
    made: int
    refused: int
    received: int
    sent: int


def node_metrics(nodes: Sequence[NodeFigures]) -> Iterator[Metric]:
    each = [({"node": node.address}, node) for node in nodes]
    up = [(node, int(figures.linked)) for node, figures in each]
    yield gauge("link_up", "Router: 1 while there is a link to the node, else 0", up)
    lanes = [(node, figures.lanes_up) for node, figures in each]
    yield gauge("link_lanes_up", "Router: replicas of the node that serve", lanes)
    made = [(node, figures.links) for node, figures in each]
    yield counter("links_made", "Router: links to the node so far, one more whenever it broke", made)
    both = [
        (node | {"direction": direction}, count)
        for node, figures in each
        for direction, count in (("received", figures.received), ("sent", figures.sent))
    ]
    yield counter("link_bytes", f"Router: {_BYTES}", both)


def router_metrics(routers: RouterFigures) -> Iterator[Metric]:
    yield gauge("router_links", "Node: links from routers", routers.links)
    yield gauge("router_requests", "Node: requests of routers that are here", routers.requests)
    yield counter("router_links_made", "Node: links from routers so far", routers.made)
    refused = "Node: connections and links that were refused; the log says why"
    yield counter("router_links_refused", refused, routers.refused)
    both = [({"direction": "received"}, routers.received), ({"direction": "sent"}, routers.sent)]
    yield counter("router_bytes", f"Node: {_BYTES}", both)
