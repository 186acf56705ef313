"""Servers that run at the same time, of which one at a time is asked."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.bench.peers.environments import own_versions
from scripts.bench.peers.loads import Load, answers, first_text, warm_up
from scripts.bench.peers.peers import Peer, Place
from scripts.lab.arguments import Say
from scripts.lab.errors import BenchError
from scripts.lab.processes import Running, started

_START_TIMEOUT_S = 900.0
_SETTLE_S = 2.0
_IDLE_S = 5.0
_RESERVE_BYTES = 2 << 30  # for the client, and what estimates miss


@dataclass(frozen=True, slots=True)
class Live:
    peer: Peer
    running: Running
    text: str  # the greedy answer to a fixed prompt


def provide(peer: Peer, place: Place, say: Say, *, install: bool) -> None:
    """Its environment and its form of the model. Raises BenchError, CalledProcessError."""
    environment = peer.environment
    if environment is not None and not environment.is_installed(place.cache):
        if not install:
            raise BenchError(
                f"not installed ({environment.size}, {', '.join(environment.packages)}); --install does that"
            )
        say(f"{peer.name}: installing {', '.join(environment.packages)} ({environment.size})")
        environment.install(place.cache)
    place.folder.mkdir(parents=True, exist_ok=True)
    peer.prepare(place)


def together(
    peers: Sequence[Peer], first: str, parameters: int, available: float | None = None
) -> list[tuple[Peer, ...]]:
    """Sets that fit into memory, each with the peer called `first`, if that is one of them."""
    room = (available_bytes() if available is None else available) - _RESERVE_BYTES
    head = tuple(peer for peer in peers if peer.name == first)
    sets, left = list[tuple[Peer, ...]](), [peer for peer in peers if peer.name != first]
    while left:
        members = [*head, left.pop(0)]
        used = sum(peer.memory_bytes(parameters) for peer in members)
        for peer in list(left):
            if used + (more := peer.memory_bytes(parameters)) <= room:
                members.append(peer)
                left.remove(peer)
                used += more
        sets.append(tuple(members))
    return sets or ([head] if head else [])


def available_bytes() -> float:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))


def first_start_s(peer: Peer, place: Place) -> float:
    """Without anything that earlier starts have kept. Raises BenchError."""
    assert peer.keeps is not None
    shutil.rmtree(place.folder / peer.keeps, ignore_errors=True)
    with _start(peer, place) as server:
        return server.ready_s


@contextlib.contextmanager
def live(peer: Peer, place: Place, every: Sequence[Load], say: Say) -> Iterator[Live]:
    """Started and warm. Raises BenchError."""
    with _start(peer, place) as server:
        say(f"{peer.name}: first answer after {server.ready_s:.1f} s")
        text = first_text(server.base_url)
        warm_up(server.base_url, place.checkpoint, every)
        yield Live(peer, server, text)


def _start(peer: Peer, place: Place) -> contextlib.AbstractContextManager[Running]:
    base = f"http://127.0.0.1:{place.port}"
    return started(
        peer.command(place),
        place.folder / f"{peer.name}.log",
        lambda _: base if answers(base) else None,
        timeout_s=_START_TIMEOUT_S,
        environment=peer.full_environment(place),
    )


def observed(servers: Sequence[Live], cache: Path) -> Iterator[dict[str, Any]]:
    """What is to be seen of each while it is idle, after its loads."""
    memory = {it.peer.name: it.running.memory() for it in servers}
    idle = idle_cpu_percent([it.running for it in servers])
    for it, percent in zip(servers, idle, strict=True):
        found = memory[it.peer.name]
        yield {
            "name": it.peer.name,
            "versions": versions(it.peer, cache),
            "ready_s": it.running.ready_s,
            "processes": len(found.by_process),
            "rss_mib": found.rss / 2**20,
            "pss_mib": found.pss / 2**20,
            "pss_mib_by_process": {name: size / 2**20 for name, size in found.by_process.items()},
            "idle_cpu_percent": percent,
            "first_text": it.text,
        }


def idle_cpu_percent(servers: Sequence[Running]) -> list[float]:
    """Of one core, by all processes of each together, while nothing is asked."""
    time.sleep(_SETTLE_S)
    before = [server.cpu_s() for server in servers]
    time.sleep(_IDLE_S)
    return [100 * (server.cpu_s() - then) / _IDLE_S for server, then in zip(servers, before, strict=True)]


def versions(peer: Peer, cache: Path) -> Mapping[str, str]:
    names = peer.versions
    return own_versions(names) if peer.environment is None else peer.environment.versions(cache, names)


FAILURES = (BenchError, subprocess.CalledProcessError, OSError)
"""What one peer's trouble can be; the others are measured all the same."""


def brief(why: str) -> str:
    """The first line, and the last one, which is where a server's log says why it ended."""
    lines = [line.strip() for line in why.splitlines() if line.strip()]
    return lines[0] if len(lines) < 2 else f"{lines[0]} {lines[-1]}"
