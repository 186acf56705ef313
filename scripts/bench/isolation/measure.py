"""Attacks on servers, in rounds: a turn against the server, then the same against the sink."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from pipeline.wire.topology import STAGES
from scripts.bench.isolation.attacker import AttackError, Campaign, Order, serve_attacker
from scripts.bench.isolation.attacks import Pace
from scripts.bench.isolation.bystander import BystanderError, Observation, Question, serve_bystander
from scripts.bench.isolation.figures import Round, Row, harm, line
from scripts.bench.isolation.kinds import Kind
from scripts.bench.isolation.sink import serve_sink
from scripts.bench.isolation.stands import Stand
from scripts.lab.arguments import say
from scripts.lab.errors import ServerError
from scripts.lab.server import WARM, Server, launched
from scripts.lab.workers import ask, worker

PROMPT = "Question: What is a ring buffer?\nAnswer:"
_STREAM_TOKENS = 50_000  # at most
_REST_S, _LOOK_S = 10.0, 0.1


@dataclass(frozen=True, slots=True)
class Workers:
    """Processes of the benchmark itself."""

    bystander: Connection
    attacker: Connection
    sink_port: int


@contextmanager
def workers() -> Iterator[Workers]:
    with worker(serve_bystander) as bystander, worker(serve_attacker) as attacker, worker(serve_sink) as sink:
        yield Workers(bystander, attacker, ask(sink, "port"))


class Target:
    """The server of a stand. One that has not survived is started anew."""

    def __init__(self, stand: Stand, directory: Path, stack: ExitStack) -> None:
        self.stand, self._directory = stand, directory
        self._life = stack.enter_context(ExitStack())
        self._server: Server | None = None

    def server(self) -> Server:
        """At rest. Raises ServerError."""
        if self._server is None or not at_rest(self._server):
            self._life.close()
            log = self._directory / f"{self.stand.name.replace(' ', '-')}.log"
            self._server = self._life.enter_context(launched(self.stand.file, (WARM, *self.stand.overrides), log))
        return self._server


def restarts_of(server: Server) -> int:
    """Of all its stages so far; where it is gone, one of each."""
    with contextlib.suppress(OSError):
        return server.restarts()
    return len(STAGES)


def at_rest(server: Server) -> bool:
    """Wait until nothing is under way; False if that does not happen."""
    deadline = time.monotonic() + _REST_S
    while server.status is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if not server.under_way(0) and len(server.stages()) == len(STAGES):
                return True
        time.sleep(_LOOK_S)
    return False


@dataclass(frozen=True, slots=True)
class Turn:
    observed: Observation
    campaign: Campaign


def take_turn(
    work: Workers,
    server: Server,
    kind: Kind,
    stand: Stand,
    port: int,
    seconds: float,
    *,
    pace: Pace | None = None,
    tokens: int | None = None,
) -> Turn:
    """The attack goes to `port`, the bystander to the server. With `tokens` its streams have so many, and the last is
    read to its end. Raises AttackError, BystanderError."""
    longest = min(_STREAM_TOKENS, stand.facts.max_length - 50)
    ask(work.bystander, Question(server.port, PROMPT, tokens or longest, whole=tokens is not None))
    try:
        ask(work.attacker, Order(kind.name, stand.facts, port, seconds, pace))
    except AttackError:
        work.bystander.send("begin")
        ask(work.bystander, "end")
        raise
    work.bystander.send("begin")
    if kind.kill is not None:
        os.kill(server.stages()[kind.kill], signal.SIGKILL)
    campaign = ask(work.attacker, "go")
    return Turn(ask(work.bystander, "end"), campaign)


def measure(kinds: Sequence[Kind], target: Target, work: Workers, rounds: int, seconds: float) -> Iterator[Row]:
    """One row for each kind."""
    for kind in kinds:
        done: list[Round] = []
        broken = ""
        for number in range(rounds):
            say(f"{target.stand.device}: {kind.title}: round {number + 1} of {rounds}")
            try:
                done.append(_round(work, target, kind, seconds))
            except (AttackError, BystanderError, ServerError, OSError) as error:
                broken = str(error)
                say(broken)
                break
        stand = target.stand
        row = Row(kind.name, kind.title, stand.device, stand.emulated, tuple(done), broken)
        say(line(row))
        yield row


def _round(work: Workers, target: Target, kind: Kind, seconds: float) -> Round:
    server, stand = target.server(), target.stand
    before, killed = restarts_of(server), kind.kill is not None
    attacked = take_turn(work, server, kind, stand, server.port, seconds)
    lingers = not at_rest(server) and server.status is None
    restarts = restarts_of(server) - before - killed
    beside = take_turn(work, target.server(), kind, stand, work.sink_port, seconds, pace=attacked.campaign.pace)
    statuses = dict(Counter(sorted(sent.status for sent in attacked.campaign.sent)))
    under, without = (harm(turn.observed, killed=killed) for turn in (attacked, beside))
    return Round(under, without, restarts, statuses, lingers)
