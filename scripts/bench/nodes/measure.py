"""What a router's front takes of its CPU, on this machine: `costs.MEASURED`, for the simulation.

    python -m scripts.bench.nodes.measure              half a minute
    python -m scripts.bench.nodes.measure --rounds 1 --step-ms 0.5

A router before one node whose device takes 2 ms a step: its frames come as often as those of twenty nodes with a
910B4, so that caches are as warm; with 0.5 ms as those of eighty. Many streams, few, and requests of one token; CPU
time of the front alone, without its client. And the decision by itself, by the number of lanes, for chats whose
system prompt is on all of them; one node leaves none to be taken.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import timeit
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np

from pipeline.front.delivery.lane import Lanes
from pipeline.front.delivery.routing import Router, Weights
from pipeline.front.delivery.stream import TokenStream
from pipeline.launcher.certificates import OpensslError
from pipeline.wire.request import Choice, Submit
from scripts.bench.nodes.costs import RouterCosts
from scripts.bench.nodes.front import PARAMS
from scripts.bench.overhead.client import Question, read_streams
from scripts.bench.overhead.device import Device
from scripts.bench.router import linked
from scripts.lab.arguments import count as some
from scripts.lab.arguments import parser, positive, say
from scripts.lab.clock import cpu_seconds
from scripts.lab.errors import BenchError
from scripts.lab.processes import exit_when_told
from scripts.lab.server import Server
from scripts.lab.table import columns

_ROWS = 32
LOADS = ((32, 1000, 1), (4, 1000, 1), (32, 1, 10))
"""Streams at once, tokens of each, and how often."""

LANES = (4, 16, 64, 256, 1000)
_SYSTEM, _OWN, _LIVE, _TURNS, _REPEATS = 1024, 400, 128, 100, 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 where nothing could be measured."""
    made = parser(__doc__)
    made.add_argument("--rounds", type=some, default=3)
    made.add_argument("--step-ms", type=positive, default=2.0, help="of the node's device")
    options = made.parse_args(arguments)
    exit_when_told()
    times = {lanes: decision_us(lanes) for lanes in LANES}
    print(columns(("lanes", "decision, µs"), list(times.items())))
    try:
        with tempfile.TemporaryDirectory() as name:
            config = Device(options.step_ms).write(Path(name) / "device.yaml", _ROWS)
            with linked(config, Path(name)) as (router, _):
                rounds = [_measure(router, number) for number in range(1 + options.rounds)][1:]
    except (BenchError, OpensslError, OSError) as error:
        print(f"measure: {error}", file=sys.stderr)
        return 1
    taken = [statistics.median(one) for one in zip(*rounds, strict=True)]
    lane = (times[LANES[-1]] - times[LANES[0]]) / (LANES[-1] - LANES[0])
    print(fitted(taken, times[LANES[0]], lane))
    return 0


def _measure(router: Server, number: int) -> list[float]:
    """Of each load the CPU time in µs."""
    say(f"round {number}" if number else "warming up")
    front = router.stages()["front"]
    taken = []
    for streams, tokens, times in LOADS:
        before = cpu_seconds(front)
        for _ in range(times):
            read_streams(Question(router.port, "completions", streams, tokens))
        taken.append(1e6 * (cpu_seconds(front) - before))
    return taken


def fitted(taken: Sequence[float], decision: float, lane: float) -> RouterCosts:
    """Of each load so many µs; to choose takes this, and more for each lane. A stream's tokens come in as many
    steps."""
    causes = np.array(
        [[streams * times, tokens * times, streams * tokens * times] for streams, tokens, times in LOADS]
    )
    request, frame, token = np.linalg.solve(causes.astype(np.float64), np.array(taken)).tolist()
    return RouterCosts(request + decision, lane, frame, token)


def decision_us(lanes: int) -> float:
    """Of CPU time, for all that the router does for a request: the least of several means."""
    chosen, numbers, live = _lanes(lanes), count(), deque[TokenStream]()
    prompts = _prompts()

    def begin() -> None:
        choice = Choice(next(numbers))
        stream = TokenStream(Submit((choice,), PARAMS, token_ids=next(prompts)), choice, 1)
        picked = chosen.choose(stream.submit)
        assert picked is not None
        chosen.settle([stream], picked)
        stream.accept(_SYSTEM + _OWN, -1)
        chosen.on_accepted(stream)
        chosen.on_started(stream)
        chosen.on_first_token(stream)
        live.append(stream)

    def whole() -> None:
        chosen.on_end(live.popleft())
        begin()

    for _ in range(max(_LIVE, 2 * lanes)):  # the system prompt is everywhere
        begin()
    return _least_us(whole)


def _least_us(what: Callable[[], object]) -> float:
    return 1e6 * min(timeit.repeat(what, timer=time.thread_time, number=_TURNS, repeat=_REPEATS)) / _TURNS


def _lanes(lanes: int) -> Lanes:
    made = Lanes(lanes, Router(lanes, Weights()))
    for lane in made:
        made.up_again(lane)
    return made


def _prompts() -> Iterator[bytes]:
    rng = np.random.default_rng(1)
    system = rng.integers(0, 4096, _SYSTEM, dtype=np.int32)
    while True:
        yield np.concatenate([system, rng.integers(0, 4096, _OWN, dtype=np.int32)]).tobytes()


if __name__ == "__main__":
    sys.exit(main())
