"""Which weights are served, as the launcher reports it, and asking it for others."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any, Final

from pipeline.front.delivery.backend import Backend
from pipeline.front.delivery.probe import probe
from pipeline.front.http.errors import SERVER, UNAVAILABLE, ApiError, retry_later
from pipeline.runtime.control_channel import ChannelError
from pipeline.runtime.generations import Control

Report = Mapping[str, Any]
"""`state`; `change`: the last one, or None; `busy`: which call is refused, and why (`launcher.weights.rollout`)."""

_OVER: Final = ("done", "refused", "rolled back")


class _Call:
    """One request for other weights, and what has become of it."""

    def __init__(self) -> None:
        self.number = secrets.randbits(53)
        self.busy = self.outcome = self.error = ""
        self.begun = False  # the folder has been looked at
        self._changed = asyncio.Event()

    def take(self, report: Report) -> None:
        change, busy = report["change"], report.get("busy", {})
        if busy.get("call") == self.number:
            self.busy = busy["why"]
        elif change is None or change["call"] != self.number:
            return
        else:
            self.begun = report["state"] != "checking"
            self.outcome, self.error = change["outcome"], change["error"]
        self._changed.set()

    @property
    def over(self) -> bool:
        return bool(self.busy) or self.outcome in _OVER

    async def wait(self, *, to_the_end: bool) -> None:
        while not (self.over or (self.begun and not to_the_end)):
            self._changed.clear()
            await self._changed.wait()


class WeightsControl:
    """A front's. Made inside a running loop."""

    def __init__(self, control: Control, backend: Backend) -> None:
        self._control, self._backend = control, backend
        self.report: Report = {"state": "idle", "change": None}
        self._calls = set[_Call]()
        self._probes = dict[int, asyncio.Task[None]]()  # by replica
        control.on("weights", self._on_report)
        control.on("probe", self._on_probe)

    async def change(self, folder: str, *, wait: bool) -> None:
        """Have the weights of this folder loaded. Returns when that has begun, or with `wait` when all replicas have
        them. Raises ApiError: 400 for a folder that does not fit, 409 while others are being loaded, 500 where the
        old ones had to be loaded again, 503."""
        call = _Call()
        self._calls.add(call)
        try:
            self._control.change_weights(folder, call.number)
            await call.wait(to_the_end=wait)
        except ChannelError:
            raise retry_later(503, "the launcher does not take it now", UNAVAILABLE) from None
        finally:
            self._calls.discard(call)
        if call.busy:
            raise ApiError(409, call.busy, kind=UNAVAILABLE)
        if call.outcome == "refused":
            raise ApiError(400, call.error, parameter="folder")
        if call.outcome == "rolled back":
            raise ApiError(500, f"the new weights do not serve, the old ones do again: {call.error}", kind=SERVER)

    def _on_report(self, report: Report) -> None:
        self.report = report
        replacing = report["state"] == "replacing"
        self._backend.lanes.newest = report["change"]["weights"] if replacing else ""
        for call in self._calls:
            call.take(report)

    def _on_probe(self, fields: Mapping[str, Any]) -> None:
        replica = fields["replica"]
        if (last := self._probes.get(replica)) is not None:
            last.cancel()  # of a generation that has ended
        self._probes[replica] = asyncio.create_task(self._probe(replica, fields["generation"]))

    async def _probe(self, replica: int, generation: int) -> None:
        self._control.answered(replica, generation, await probe(self._backend, replica))
