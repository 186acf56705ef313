"""What a server holds when nothing runs: the same before and after whatever was done to it, nothing at the end."""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ipc.inspect import FoundSegment, find_segments
from pipeline.config.pipeline_section import MOST_REPLICAS
from pipeline.wire.topology import Topology
from scripts.lab.errors import ServerError
from scripts.lab.processes import lives
from scripts.lab.server import Server

_PATIENCE_S, _LOOK_S = 10.0, 0.1
_PIDFD = "anon_inode:[pidfd]"
ALLOWED = max(len(stage.rings) for stage in Topology(replicas=MOST_REPLICAS).stages)


@dataclass(frozen=True, slots=True)
class Quiet:
    """As it was at the beginning."""

    descriptors: dict[str, Counter[str]]  # of each process, by what they are
    segments: int
    kv_blocks: float

    @classmethod
    def of(cls, server: Server) -> Self:
        """Descriptors are counted before the connection that asks for metrics."""
        descriptors = {name: kinds_of_descriptors(pid) for name, pid in server.processes().items()}
        return cls(descriptors, len(segments(server)), server.metrics().total("kv_blocks"))

    def differences(self, server: Server) -> list[str]:
        """What is in use, or held in addition, some time after the last client has gone."""
        deadline = time.monotonic() + _PATIENCE_S
        while (found := self._look(server)) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        return found

    def _look(self, server: Server) -> list[str]:
        now, busy = Quiet.of(server), server.under_way(0)
        found = [f"{name} is {value:g}" for name, value in busy.items()]
        for name, held in self.descriptors.items():
            holds = now.descriptors.get(name, Counter())
            if holds.total() > held.total():
                more = ", ".join((holds - held).elements())
                found.append(f"{name} holds {holds.total()} descriptors, {held.total()} at first; more are: {more}")
        if now.segments != self.segments:
            found.append(f"{now.segments} segments are held, {self.segments} at first")
        if now.kv_blocks != self.kv_blocks:
            found.append(f"there are {now.kv_blocks:g} KV blocks, {self.kv_blocks:g} at first")
        return found


def kinds_of_descriptors(pid: int) -> Counter[str]:
    """Open ones, by what they are. A pidfd is opened when a wait lasts for the first time, and may or may not be
    there; one per ring is allowed for, whatever the number."""
    kinds = Counter[str]()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            kinds[re.sub(r"\d+", "#", str(path.readlink()))] += 1
    kinds[_PIDFD] = max(kinds[_PIDFD], ALLOWED)
    return kinds


def segments(server: Server) -> list[FoundSegment]:
    """That this server's processes hold, and names that it made."""
    mine = {*server.processes().values()}
    return [found for found in find_segments() if mine & {*found.pids} or f"-{server.pid}-" in found.name]


def lost_wakes(server: Server) -> int:
    """Timed waits that expired though data was there, in all rings; must be 0. Raises ServerError."""
    rings = [found.ring for found in segments(server) if found.ring is not None]
    if not rings:
        raise ServerError("no ring was found")
    return sum(side.counters["lost_wakes"] for ring in rings for side in (ring.producer, *ring.consumers))


def traces(launcher: int, processes: Mapping[str, int]) -> list[str]:
    """What is left of a server that has ended: processes, and names of segments."""
    left = [f"process {name} ({pid})" for name, pid in processes.items() if lives(pid)]
    pids = {*processes.values()}
    return left + [found.name for found in find_segments() if f"-{launcher}-" in found.name or {*found.pids} & pids]
