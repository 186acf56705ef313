"""Everything together, on one engine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.wire.topology import Topology
from scripts.verify.everything.engines import build
from scripts.verify.everything.load import MixedTally, mixed
from scripts.verify.survival.load import Tally
from scripts.verify.survival.ordeal import Ordeal

REPLICAS = 2
ENGINES = ("emulated", "openvino", "mindspore")


@dataclass(frozen=True, slots=True)
class Wanted:
    """`roles`: of stages that are hit. `copies`: of each kind of request. `extra`: settings."""

    tokens: int
    seed: int
    roles: tuple[str, ...]
    rounds: int = 1
    copies: int = 1
    extra: tuple[str, ...] = ()


@contextmanager
def trial(engine: str, wanted: Wanted) -> Iterator[Ordeal]:
    """The plan, as long as its folders are there."""
    topology = Topology(replicas=REPLICAS)
    with tempfile.TemporaryDirectory(prefix="ringserve-everything-") as name:
        served = build(engine, Path(name), REPLICAS, wanted.extra)
        yield Ordeal(
            served.config,
            served.overrides,
            wanted.tokens,
            wanted.seed,
            rounds=wanted.rounds,
            stages=tuple(one.key for one in topology.stages if one.name in wanted.roles),
            topology=topology,
            prepare=partial(mixed, served=served, copies=wanted.copies),
            folders=served.folders,
        )


def show(tally: Tally) -> None:
    """What was asked, beside what chaos shows."""
    assert isinstance(tally, MixedTally)
    print(
        f"{tally.streams} answers, {tally.tokens} events; clients came back {tally.returns} times and asked anew "
        f"{tally.repeats} times; {tally.lost_scores} with scores of prompts failed with their front"
    )
    print(f"weights: {len(tally.weights)} ids are named, by {tally.mixed} texts more than one")
    print(f"least of a kind: {min(tally.by_kind.values(), default=0)} answers")
    for place, count in tally.flips.items():
        print(f"  near tie, {count} times: {place}: {tally.told[place]}")
