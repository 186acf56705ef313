"""Servers of a width take turns, load by load: a noisy machine is noisy for all, and ratios of a round count."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.bench.peers.checkpoint import Model, make_checkpoint
from scripts.bench.peers.journal import Journal
from scripts.bench.peers.loads import Load, loads, put
from scripts.bench.peers.peers import WIDTHS, Peer, Place, reference
from scripts.bench.peers.servers import (
    FAILURES,
    Live,
    brief,
    first_start_s,
    live,
    observed,
    provide,
    together,
)
from scripts.lab.arguments import Say
from scripts.lab.others import Others
from scripts.lab.processes import free_port

_PAUSE_S = 0.3  # threads that have nothing to do any more spin for up to 0.2 s
_GUESS_S = {"start": 15.0, "round": 20.0}  # of a server, before anything was measured


@dataclass(frozen=True, slots=True)
class Plan:
    model: Model
    peers: tuple[Peer, ...]
    streams: tuple[int, ...]
    rounds: int
    waves: int
    prompt_tokens: int
    output_tokens: int
    ttft_tokens: int
    ttft_requests: int
    threads: int
    cache: Path
    folder: Path
    install: bool
    first_starts: bool

    @property
    def loads(self) -> list[Load]:
        sizes = (self.prompt_tokens, self.output_tokens, self.ttft_tokens, self.ttft_requests)
        return loads(self.streams, self.waves, *sizes)

    def told(self) -> dict[str, Any]:
        """What figures depend on, as JSON has it; not how often they are taken, nor of which servers."""
        return {
            "model": asdict(self.model),
            "loads": [asdict(load) for load in self.loads],
            "threads": self.threads,
        }


class Comparison:
    def __init__(self, plan: Plan, journal: Journal, say: Say) -> None:
        self.plan, self.journal, self._say = plan, journal, say
        self.skipped: dict[str, str] = {}
        self._left = _TimeLeft(journal)

    def run(self) -> None:
        """All that the journal lacks."""
        self._say("making the checkpoint")
        make_checkpoint(self.plan.folder / "checkpoint", self.plan.model.size, self.plan.model.dtype)
        peers = [peer for peer in self.plan.peers if self._guarded(peer, self._provide)]
        sets = self._sets(peers)
        for number, members in enumerate(sets):
            missing = self.plan.rounds - self.journal.rounds_of([peer.name for peer in members])
            self._say_left(sets[number:])
            if missing > 0:
                self._first_starts(members)
                self._measure([peer for peer in members if peer.name not in self.skipped], sets[number:])

    def _sets(self, peers: Sequence[Peer]) -> list[tuple[Peer, ...]]:
        parameters = self.plan.model.size.parameters
        by_width = [[peer for peer in peers if peer.width == width] for width in WIDTHS]
        return [it for some in by_width if some for it in together(some, reference(some[0].width), parameters)]

    def _place(self) -> Place:
        return Place(self.plan.cache, self.plan.folder, free_port(), self.plan.threads)

    def _provide(self, peer: Peer) -> None:
        provide(peer, self._place(), self._say, install=self.plan.install)

    def _guarded(self, peer: Peer, do: Callable[[Peer], None]) -> bool:
        try:
            do(peer)
        except FAILURES as error:
            self.skipped[peer.name] = brief(str(error))
            self._say(f"{peer.name}: skipped: {error}")
        return peer.name not in self.skipped

    def _first_starts(self, members: Sequence[Peer]) -> None:
        known = {record["name"] for record in self.journal.of("start")}
        for peer in members:
            if self.plan.first_starts and peer.keeps and peer.name not in known:
                self._guarded(peer, self._first_start)

    def _first_start(self, peer: Peer) -> None:
        seconds = first_start_s(peer, self._place())
        self._say(f"{peer.name}: first start: first answer after {seconds:.1f} s")
        self.journal.add("start", {"name": peer.name, "first_s": seconds})

    def _measure(self, members: Sequence[Peer], ahead: Sequence[Sequence[Peer]]) -> None:
        with contextlib.ExitStack() as stack:
            servers: list[Live] = []
            for peer in members:
                self._guarded(peer, lambda peer: servers.append(stack.enter_context(self._live(peer))))
            others = Others(lambda: sum(it.running.cpu_s() for it in servers))
            names = [it.peer.name for it in servers]
            while servers and self.journal.rounds_of(names) < self.plan.rounds:
                servers = self._round(servers, self.journal.rounds_of(names))
                names = [it.peer.name for it in servers]
                self._say_left(ahead)
            percent = others.percent()
            for seen in observed(servers, self.plan.cache):
                self.journal.add("server", seen | {"others_cpu_percent": percent})

    def _live(self, peer: Peer) -> contextlib.AbstractContextManager[Live]:
        return live(peer, self._place(), self.plan.loads, self._say)

    def _round(self, servers: Sequence[Live], number: int) -> list[Live]:
        """Those that are left. Each begins in turn, since the first one after a pause has colder caches."""
        began, found = time.monotonic(), {it.peer.name: dict[str, Any]() for it in servers}
        for load in self.plan.loads:
            for it in _turned(servers, number):
                if it.peer.name not in self.skipped:
                    self._guarded(it.peer, lambda _, it=it, load=load: self._put(it, load, found))  # type: ignore[misc]
        left = [it for it in servers if it.peer.name not in self.skipped]
        if len(left) == len(servers):
            seconds = time.monotonic() - began
            self.journal.add("round", {"set": list(found), "figures": found, "seconds": seconds})
        return left

    def _put(self, it: Live, load: Load, found: dict[str, dict[str, Any]]) -> None:
        time.sleep(_PAUSE_S)
        found[it.peer.name][load.name] = put(it.running.base_url, self.plan.folder / "checkpoint", load)

    def _say_left(self, ahead: Sequence[Sequence[Peer]]) -> None:
        seconds = self._left.seconds(ahead, self.plan.rounds)
        self._say(f"about {seconds / 60:.0f} minutes left" if seconds else "all is measured")


def _turned(servers: Sequence[Live], number: int) -> Iterator[Live]:
    for at in range(len(servers)):
        yield servers[(at + number) % len(servers)]


class _TimeLeft:
    """From the rounds and starts so far."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def seconds(self, sets: Sequence[Sequence[Peer]], rounds: int) -> float:
        return sum(self._of(peers, rounds) for peers in sets)

    def _of(self, peers: Sequence[Peer], rounds: int) -> float:
        names = [peer.name for peer in peers]
        if (missing := rounds - self._journal.rounds_of(names)) <= 0:
            return 0.0
        done = self._journal.of("round")
        mine: list[float] = [record["seconds"] for record in done if record["set"] == names]
        if mine:
            return missing * statistics.mean(mine)
        each: list[float] = [record["seconds"] / len(record["set"]) for record in done] or [_GUESS_S["round"]]
        return len(names) * (missing * statistics.mean(each) + _GUESS_S["start"])
