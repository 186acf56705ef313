"""Which pairs a run consists of."""

from __future__ import annotations

from dataclasses import dataclass

from ipc.ring import DEFAULT_SPIN_US
from scripts.bench.ipc.transports import transport_class
from scripts.bench.ipc.transports.base import Access, Job, PairSpec, Transport

SIZES = (64, 4096, 131072, 4194304)
PAUSE_US = 1000.0
_BUSY = {64: 30000, 4096: 15000, 131072: 3000, 4194304: 100}
_STREAM = {64: 100000, 4096: 30000, 131072: 3000, 4194304: 100}
_BATCHED = {64: 3000000, 4096: 100000, 131072: 3000, 4194304: 100}
_BATCH = {64: 256, 4096: 32, 131072: 2, 4194304: 2}
_RAW_SIZE = 4
"""The raw limit hands over one word."""


@dataclass(frozen=True, slots=True)
class Effort:
    """`scale` divides the messages of a round."""

    rounds: int = 5
    scale: int = 1
    idle_s: float = 10.0
    parked: int = 400
    deaths: int = 30


QUICK = Effort(rounds=1, scale=20, idle_s=3.0, parked=100, deaths=5)


def round_pairs(names: tuple[str, ...], effort: Effort, *, pinned: bool) -> list[PairSpec]:
    """One round: for every size, and then for the parked wake-up, all transports in turn."""
    pairs = [spec for size in SIZES for name in names for spec in _busy_pairs(name, size, effort, pinned=pinned)]
    return pairs + [spec for name in names if (spec := _parked_pair(name, effort, pinned=pinned))]


def _busy_pairs(name: str, size: int, effort: Effort, *, pinned: bool) -> list[PairSpec]:
    jobs: tuple[Job, ...]
    if name.startswith("raw"):
        jobs = (Job("busy", count=_count(_BUSY[64], name, effort)),)
        return [PairSpec(name, _RAW_SIZE, pinned, jobs)] if size == SIZES[0] else []
    transport = transport_class(name)
    jobs = tuple(job for access in transport.accesses for job in _busy_jobs(transport, access, size, effort))
    # Named, so that every run says which it was
    return [PairSpec(name, size, pinned, jobs, spin_us=DEFAULT_SPIN_US)]


def _busy_jobs(transport: type[Transport], access: Access, size: int, effort: Effort) -> list[Job]:
    jobs = [
        Job("busy", access, count=_count(_BUSY[size], transport.name, effort)),
        Job("stream", access, count=_count(_STREAM[size], transport.name, effort)),
    ]
    if access in transport.batched:
        batch = _BATCH[size]
        count = _count(_BATCHED[size], transport.name, effort) // batch * batch
        jobs.append(Job("stream-batched", access, count=max(count, 2 * batch), batch=batch))
    if access == "in-place" and transport.name == "ring":
        jobs.append(Job("parts", access, count=_count(_BUSY[size] // 3, transport.name, effort)))
    return jobs


def _parked_pair(name: str, effort: Effort, *, pinned: bool) -> PairSpec | None:
    """Nobody spins: what a message costs whose receiver sleeps."""
    if name == "raw-spin":
        return None
    size, access = _small(name)
    jobs = (Job("parked", access, count=effort.parked, pause_us=PAUSE_US),)
    return PairSpec(name, size, pinned, jobs, sleeps=True, spin_us=0)


def cpu_pairs(names: tuple[str, ...], effort: Effort) -> list[PairSpec]:
    """Idle, and with a message each way per millisecond, at default settings. Not pinned."""
    pairs = []
    for name in names:
        if not name.startswith("raw"):
            size, access = _small(name)
            cadence = Job("cadence", access, count=effort.parked * 3, pause_us=PAUSE_US)
            idle = Job("idle", access, seconds=effort.idle_s)
            pairs.append(PairSpec(name, size, pinned=False, jobs=(idle, cadence), sleeps=True))
    return pairs


def _small(name: str) -> tuple[int, Access]:
    return (_RAW_SIZE, "copy") if name.startswith("raw") else (SIZES[0], transport_class(name).accesses[-1])


def _count(full: int, name: str, effort: Effort) -> int:
    return max(20, full // (effort.scale * transport_class(name).cost))
