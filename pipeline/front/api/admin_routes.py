"""What operators ask of a server that runs: other weights."""

from __future__ import annotations

from typing import Any, Final

import orjson
from pydantic import Field

from pipeline.front.api.body import Body, Reading, read
from pipeline.front.api.fields import given
from pipeline.front.api.json_body import parse_object
from pipeline.front.delivery.backend import Backend
from pipeline.front.delivery.weights import WeightsControl
from pipeline.front.http.access import require_operator
from pipeline.front.http.errors import ApiError
from pipeline.front.http.exchange import Exchange, answer_json
from pipeline.front.links.router import NodeLinks
from pipeline.front.settings import FrontSettings

WEIGHTS: Final = "/admin/weights"
_ROUTER = "a router has no weights; ask each of its nodes, on its own port for operators"


class WeightsRequest(Body):
    folder: str = Field(
        min_length=1,
        max_length=4096,
        pattern="^/",
        description="A model's folder, by its absolute path on the server's machine. It has the same family, sizes, "
        "types, vocabulary and tokenizer as what is served; otherwise it is refused.",
    )
    wait: bool = given(False, "Answer when all replicas have the weights, or one has failed to load them.")


class AdminRoutes:
    """For an operator's API key; where no keys are needed, for clients on the same machine."""

    def __init__(
        self, settings: FrontSettings, weights: WeightsControl, backend: Backend, nodes: NodeLinks | None
    ) -> None:
        """`nodes`: a router's."""
        self._settings, self._weights, self._backend, self._nodes = settings, weights, backend, nodes

    async def weights(self, exchange: Exchange) -> None:
        """Which ones are served, and how far a change is."""
        require_operator(exchange)
        await answer_json(exchange, self._report())

    async def change(self, exchange: Exchange) -> None:
        require_operator(exchange)
        content = await exchange.read_body()
        asked = read(WeightsRequest, parse_object(content), Reading(self._settings), status=400)
        if self._nodes is not None:
            raise ApiError(400, _ROUTER)
        await self._weights.change(asked.folder, wait=asked.wait)
        await exchange.respond(200 if asked.wait else 202, orjson.dumps(self._report()))

    def _report(self) -> dict[str, Any]:
        report = self._weights.report
        change = None if report["change"] is None else dict(report["change"])
        if change is not None:
            del change["call"]
        replicas = [self._lane(lane.replica) for lane in self._backend.lanes]
        return {"state": report["state"], "replicas": replicas, "change": change}

    def _lane(self, replica: int) -> dict[str, Any]:
        """`weights` are those that it computes with, or did last."""
        lane = self._backend.lanes[replica]
        about: dict[str, Any] = {"replica": replica, "weights": lane.weights, "serves": lane.up}
        if self._nodes is not None and (node := self._nodes.node_of(replica)) is not None:
            about["node"] = node
        return about
