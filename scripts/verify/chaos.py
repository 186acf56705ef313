"""Kills and stops processes of a real server under 32 streams of known text, and compares every stream.

    python -m scripts.verify.chaos                         two rounds of each kind, on an emulated device; two minutes
    python -m scripts.verify.chaos --rounds 500            for a night
    python -m scripts.verify.chaos --stages inference      only this one is hit
    python -m scripts.verify.chaos --stages front          streams outlive it: their clients come back
    python -m scripts.verify.chaos --config configs/demo.yaml --streams 8 --tokens 80
    python -m scripts.verify.chaos --replicas 4            each stage of each replica is hit
    python -m scripts.verify.chaos --config configs/demo.yaml --ranks 2 --streams 8 --tokens 80
                                                           each rank of a model in two parts, too
    python -m scripts.verify.chaos --everything            requests of every kind, on three engines

A round is one fault at a random time: kill -9, or SIGSTOP for ten seconds, of one stage or of several at once.
Streams come from both APIs, a third of them sampled with a seed; each must be, token by token, what it was before
anything happened. One whose front was killed loses its connection, and its client comes back for the rest, unless
--detached-s is 0: then it must be the beginning of that. No stage may be started anew but those that were hit, and
other ranks of theirs. At the end nothing may be in use, held or left that was not at the beginning. With several
replicas it prints the longest gap of streams at those that were not hit, too. Exit status 1 if anything was wrong.

With --everything there are two replicas that speculate, and requests of every kind
(scripts/verify/everything/kinds.py): all APIs, grammars, tools, several choices, log-probabilities, echo, adapters,
deterministic ones, responses in the background, clients that leave and come back. Weights are changed, too, to others
that give the same texts. Every answer must be, whole, what it was before anything happened. On an engine that rounds,
a text may part at a near tie: its margin is printed, and is a fault beyond 1e-4. What an engine can't do is left out,
and named.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path

from pipeline.wire.topology import STAGES, Topology
from scripts.lab.arguments import count, words
from scripts.verify.everything import trial
from scripts.verify.everything.trial import ENGINES, Wanted
from scripts.verify.survival.ordeal import Ordeal, Outcome, run
from scripts.verify.survival.session import EMULATED, conclude, parser_of

DEFAULTS = ("pipeline.hang_timeout_s=2", "pipeline.runner.cost_model.fixed_ms=10")


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__, tokens=300)
    parser.add_argument("--rounds", type=count, default=22)
    parser.add_argument("--everything", action="store_true", help="requests of every kind")
    parser.add_argument("--engines", type=words("engine", ENGINES), default=ENGINES, metavar="NAMES",
                        help="with --everything: one after the other")  # fmt: skip
    parser.add_argument("--copies", type=count, default=1, help="with --everything: of each kind of request")
    parser.add_argument("--replicas", type=count, default=1)
    parser.add_argument("--ranks", type=count, default=1)
    parser.add_argument("--stages", type=words("stage", STAGES), default=STAGES, metavar="NAMES",
                        help="roles of those that are hit, separated by commas")  # fmt: skip
    parser.add_argument("--config", type=Path, help=f"default: {EMULATED.name} with steps of 10 ms")
    parser.add_argument("--streams", type=count, default=32)
    parser.add_argument("--detached-s", type=float, default=60.0, help="how long streams wait for their clients")
    return parser.parse_args()


def parse(given: argparse.Namespace) -> Ordeal:
    config, topology = given.config or EMULATED, Topology(replicas=given.replicas, ranks=given.ranks)
    processes = f"pipeline.replicas={given.replicas}", f"pipeline.ranks={given.ranks}"
    overrides = (*(() if given.config else DEFAULTS), *processes, *given.set)
    hit = tuple(stage.key for stage in topology.stages if stage.name in given.stages)
    own = given.rounds, hit, given.streams, topology, given.detached_s
    return Ordeal(config, overrides, given.tokens, given.seed, *own)


def main() -> int:
    given = arguments()
    print(f"seed {given.seed}", flush=True)
    if given.everything:
        return max(everything(engine, given) for engine in given.engines)
    plan = parse(given)
    return conclude("chaos", lambda: run(plan), show)


def everything(engine: str, given: argparse.Namespace) -> int:
    wanted = Wanted(given.tokens, given.seed, given.stages, given.rounds, given.copies, tuple(given.set))
    with trial.trial(engine, wanted) as plan:
        return conclude(f"chaos, {engine}", lambda: run(plan), _show_everything)


def _show_everything(report: Outcome) -> None:
    show(report)
    trial.show(report.tally)


def show(report: Outcome) -> None:
    tally = report.tally
    print(f"\n{report.rounds} rounds, {report.restarts} restarts")
    _table("seconds for which streams stood still", report.resumed_s)
    if any(report.beside_s.values()):
        _table("longest gap of a stream at another replica, seconds", report.beside_s)
    _table("front hit: seconds to the first token of a new connection", report.fronts_s)
    cut_off = f"{tally.cut_off} that were cut off with their front"
    print(
        f"{tally.streams} whole streams and {cut_off}, {tally.tokens} tokens; clients came back {tally.returns} times"
    )
    print(f"tokens lost: {tally.lost}, doubled: {tally.doubled}")


def _table(title: str, seconds: Mapping[str, list[float]]) -> None:
    print(f"{title}:")
    every = [value for values in seconds.values() for value in values]
    for name, values in (*sorted(seconds.items()), ("all", every)):
        if values:
            print(f"  {name:24} p50 {statistics.median(values):6.2f}   max {max(values):6.2f}")


if __name__ == "__main__":
    sys.exit(main())
