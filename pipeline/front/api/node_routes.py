"""`/admin/nodes` of a router, on the operators' port: which nodes it has. For an operator's API key, and for clients
on the same machine."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from pipeline.config.kinds import Unsuitable, host_and_port
from pipeline.front.api.body import Body, Reading, read
from pipeline.front.api.fields import refuse
from pipeline.front.api.json_body import parse_object
from pipeline.front.http.access import require_operator
from pipeline.front.http.errors import ApiError
from pipeline.front.http.exchange import Exchange, Handler, answer_json
from pipeline.front.links.router import NodeLink, NodeLinks
from pipeline.front.settings import FrontSettings

NODES: Final = "/admin/nodes"
_LONGEST: Final = 300  # characters of a host and a port


def _place(text: str) -> str:
    try:
        return host_and_port(text)
    except Unsuitable as error:
        refuse(f"nodes has {text!r}; {error}")


Place = Annotated[str, Field(max_length=_LONGEST), AfterValidator(_place)]


class Nodes(Body):
    nodes: list[Place] = Field(description="All that there are to be, as host and port.")


class NodeRoutes:
    """`links`: None for a server that is no router."""

    def __init__(self, settings: FrontSettings, links: NodeLinks | None) -> None:
        self._settings, self._links = settings, links

    def routes(self) -> dict[str, tuple[str, Handler]]:
        return {} if self._links is None else {NODES: ("PUT", self.put)}

    async def put(self, exchange: Exchange) -> None:
        """Nodes that are not there yet are linked, those that are not named leave: nothing new goes there, and what
        they have ends, or goes on elsewhere after `drain_timeout_s`. The answer has both."""
        require_operator(exchange, or_local=True)
        links = self._links
        assert links is not None  # there is no such route
        values = parse_object(await exchange.read_body())
        nodes = read(Nodes, values, Reading(self._settings), status=400).nodes
        if len(set(nodes)) < len(nodes):
            raise ApiError(400, "nodes names one of them twice; expected each once", parameter="nodes")
        if len(nodes) > links.most:
            message = f"nodes has {len(nodes)} of them; this router has room for {links.most} (pipeline.max_nodes)"
            raise ApiError(400, message, parameter="nodes")
        links.put(nodes)
        requests = links.requests()
        there = [_described(link, requests[link.address]) for link in links.links]
        missing = {*nodes} - {link.address for link in links.links}
        later = [_node(node, "waits for the place of one that leaves") for node in nodes if node in missing]
        await answer_json(exchange, {"object": "list", "data": there + later})


def _described(link: NodeLink, requests: int) -> dict[str, Any]:
    state = "leaving" if link.leaving else "linked" if link.linked else "not linked"
    return _node(link.address, state, link.lanes_up, requests)


def _node(address: str, state: str, replicas: int = 0, requests: int = 0) -> dict[str, Any]:
    return {"object": "node", "node": address, "state": state, "replicas_up": replicas, "requests": requests}
