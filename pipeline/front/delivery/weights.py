"""Which weights are served, as the launcher reports it, and asking it for others."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from prometheus_client.core import Metric

from pipeline.front.delivery.backend import Backend
from pipeline.front.delivery.probe import probe
from pipeline.front.http.errors import UNAVAILABLE, ApiError, retry_later
from pipeline.front.metrics.families import gauge
from pipeline.runtime.control_channel import ChannelError
from pipeline.runtime.generations import Control

Report = Mapping[str, Any]
"""`state`; `replicas`: the id of each one's weights; `change`: the last one, or None (`launcher.weights.rollout`)."""

CHECKING: Final = "checking"
UNDER_WAY: Final = "under way"


class WeightsControl:
    """A front's. Made inside a running loop."""

    def __init__(self, control: Control, backend: Backend) -> None:
        self._control, self._backend = control, backend
        self.report: Report = {"state": "idle", "replicas": [], "change": None}
        self._changed = asyncio.Event()
        self._probes = set[asyncio.Task[None]]()
        control.on("weights", self._on_report)
        control.on("probe", self._on_probe)

    async def change(self, folder: str) -> int:
        """Have the weights of this folder loaded: a number by which `outcome` knows it. The folder has been looked
        at. Raises ApiError: 400 for one that does not fit, 409 while others are being loaded, 503."""
        call = secrets.randbits(53)
        try:
            self._control.change_weights(folder, call)
        except ChannelError:
            raise retry_later(503, "the launcher does not take it now", UNAVAILABLE) from None
        report = await self._until(lambda report: _is_busy(report, call) or _is_known(report, call))
        if _is_busy(report, call):
            raise ApiError(409, report["busy"]["why"], kind=UNAVAILABLE)
        if report["change"]["outcome"] == "refused":
            raise ApiError(400, report["change"]["error"], parameter="folder")
        return call

    async def outcome(self, call: int) -> str:
        """Why this change has failed, when it is over; empty if it has not."""
        report = await self._until(lambda report: not _has(report, call) or report["change"]["outcome"] != UNDER_WAY)
        return str(report["change"]["error"]) if _has(report, call) else ""

    async def _until(self, holds: Callable[[Report], bool]) -> Report:
        while not holds(self.report):
            await self._changed.wait()
        return self.report

    def _on_report(self, fields: Report) -> None:
        self.report = fields
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _on_probe(self, fields: Mapping[str, Any]) -> None:
        task = asyncio.create_task(self._probe(fields["replica"], fields["generation"]))
        self._probes.add(task)
        task.add_done_callback(self._probes.discard)

    async def _probe(self, replica: int, generation: int) -> None:
        self._control.answered(replica, generation, await probe(self._backend, replica))

    def metrics(self) -> Iterator[Metric]:
        """Of the lanes: a router has them, too."""
        each = [
            ({"replica": str(lane.replica), "weights": lane.weights}, 1) for lane in self._backend.lanes if lane.up
        ]
        yield gauge("weights_info", "1 for the weights that each replica computes with, by their id", each)


def _has(report: Report, call: int) -> bool:
    change = report["change"]
    return change is not None and bool(change["call"] == call)


def _is_known(report: Report, call: int) -> bool:
    return _has(report, call) and report["state"] != CHECKING


def _is_busy(report: Report, call: int) -> bool:
    return bool(report.get("busy", {}).get("call") == call)
