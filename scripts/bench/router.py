"""What a router and a link cost: the same node asked directly, and through both, in turns. Beside them what others
put before the direct server, where it is installed: HAProxy in the same turns, Ray Serve's own proxy by itself.

    python -m scripts.bench.router                          64 streams of 500 tokens, five rounds
    python -m scripts.bench.router --rounds 2 --tokens 200
    .cache/ray/bin/python -m scripts.bench.router           Ray Serve's own proxy, too (make test-scale installs it)

On a device that takes no time: CPU time of all processes, the client included, over the tokens that came, and the
time to the first token of a lone request. All share this machine's CPUs with the direct server.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pipeline.launcher.certificates import NODE, ROUTER, OpensslError, link_files, make_certificates
from scripts.bench.overhead.client import Question, Streams, read_streams
from scripts.bench.overhead.device import Device
from scripts.bench.ray_proxy import behind_ray, is_installed
from scripts.lab.arguments import count, parser, say, write_json
from scripts.lab.clock import cpu_seconds
from scripts.lab.errors import BenchError
from scripts.lab.goals import Goal
from scripts.lab.haproxy import ABSENT, balanced, find_haproxy
from scripts.lab.processes import descendants, exit_when_told, free_port
from scripts.lab.server import Server, launched
from scripts.lab.table import columns

DIRECT: Final = "direct"
THROUGH: Final = "through a router"
BALANCED: Final = "through HAProxy"
CPU_RATIO, FIRST_MS = 1.15, 1.0


@dataclass(frozen=True, slots=True)
class Way:
    """To reach a server: where it is asked, and the processes that take part, each with all below it."""

    port: int
    pids: Sequence[int]


@dataclass(slots=True)
class Measured:
    """Of one way, a value a round."""

    cpu_us: list[float] = field(default_factory=list)  # per token, of all processes
    rates: list[float] = field(default_factory=list)  # tokens per second
    first_ms: list[float] = field(default_factory=list)  # median of the round's lone requests

    def line(self, name: str) -> Sequence[object]:
        return name, *map(statistics.median, (self.cpu_us, self.rates, self.first_ms))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 where a goal was missed or nothing could be measured."""
    options = _parser().parse_args(arguments)
    exit_when_told()
    found: dict[str, Measured] = {}
    try:
        with tempfile.TemporaryDirectory() as folder, _ways(Path(folder), options.streams) as ways:
            found |= _in_turns(ways, options)
            if is_installed():
                found |= _behind_ray(ways[DIRECT], options)
    except (BenchError, OpensslError, OSError) as error:
        print(f"router: {error}", file=sys.stderr)
        return 1
    goals = _goals(found)
    head = ("way", "CPU µs per token", "tokens/s", "first token, ms")
    print(columns(head, [measured.line(way) for way, measured in found.items()]))
    print(*(goal.text for goal in goals), sep="\n")
    figures = {name: dict(zip(head[1:], measured.line(name)[1:], strict=True)) for name, measured in found.items()}
    write_json(options.json, {"goals": [goal.told() for goal in goals], "ways": figures})
    return int(not all(goal.met for goal in goals))


def _parser() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument("--streams", type=count, default=64)
    made.add_argument("--tokens", type=count, default=500, help="of each stream")
    made.add_argument("--requests", type=count, default=40, help="lone ones, for the first token")
    made.add_argument("--rounds", type=count, default=5)
    made.add_argument("--json", type=Path, metavar="FILE", help="write goals and medians there, too")
    return made


@contextlib.contextmanager
def _ways(folder: Path, streams: int) -> Iterator[Mapping[str, Way]]:
    """All of them, the direct one first. Raises BenchError, OpensslError."""
    config = Device(0.0).write(folder / "null.yaml", streams)
    with contextlib.ExitStack() as stack:
        direct = stack.enter_context(launched(config, (), folder / "direct.log"))
        ways = {DIRECT: Way(direct.port, [direct.pid])}
        for name, opened in WAYS.items():
            if (way := stack.enter_context(opened(folder, config, direct))) is not None:
                ways[name] = way
        yield ways


@contextlib.contextmanager
def _router(folder: Path, config: Path, direct: Server) -> Iterator[Way | None]:
    """To a node of its own."""
    with linked(config, folder) as (router, node):
        yield Way(router.port, [router.pid, node.pid])


@contextlib.contextmanager
def linked(config: Path, folder: Path) -> Iterator[tuple[Server, Server]]:
    """A router, and its node. Raises BenchError, OpensslError."""
    make_certificates(folder, ["127.0.0.1"])

    def link(role: str) -> list[str]:
        return [f"{key}={file}" for key, file in link_files(folder, role).items()]

    listen = "pipeline.link.listen=127.0.0.1:0"
    with launched(config, (listen, *link(NODE)), folder / "node.log") as node:
        nodes = f"pipeline.nodes={node.base_url}"
        with launched(config, (nodes, *link(ROUTER)), folder / "router.log") as router:
            yield router, node


@contextlib.contextmanager
def _haproxy(folder: Path, config: Path, direct: Server) -> Iterator[Way | None]:
    """To the direct server, which stands for both."""
    if find_haproxy() is None:
        say(f"left out: {ABSENT}")
        yield None
        return
    place = f"127.0.0.1:{direct.port}"
    with balanced(place, place, folder / "haproxy.log") as proxy:
        yield Way(int(proxy.base_url.rpartition(":")[2]), [proxy.pid, direct.pid])


Opened = Callable[[Path, Path, Server], AbstractContextManager[Way | None]]
"""From a folder, the configuration and the direct server; None: what it needs is not installed."""
WAYS: Final[Mapping[str, Opened]] = {THROUGH: _router, BALANCED: _haproxy}


def _behind_ray(direct: Way, options: argparse.Namespace) -> dict[str, Measured]:
    """By itself: what Ray does while nobody asks it is nothing of the others."""
    own = free_port()
    with behind_ray(direct.port, own) as pids:
        ways = {f"{DIRECT}, while Ray runs": direct, "through Ray Serve's proxy": Way(own, [*direct.pids, *pids])}
        return _in_turns(ways, options)


def _in_turns(ways: Mapping[str, Way], options: argparse.Namespace) -> dict[str, Measured]:
    """Raises BenchError, OSError."""
    found = {name: Measured() for name in ways}
    for way in ways.values():
        _read(way, 4, 40)  # warms up
    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds}: {', '.join(ways)}")
        for name in list(ways)[:: 1 if number % 2 else -1]:
            _measure(ways[name], options, found[name])
    return found


def _measure(way: Way, options: argparse.Namespace, into: Measured) -> None:
    """Raises BenchError, OSError."""
    pids = {pid for root in way.pids for pid in descendants(root)}
    tokens = options.streams * options.tokens
    before = _cpu_s(pids)
    came = _read(way, options.streams, options.tokens)
    spent = sum(seconds - before.get(pid, 0.0) for pid, seconds in _cpu_s(pids).items())
    into.cpu_us.append(1e6 * spent / tokens)
    into.rates.append(1e9 * tokens / float(came.times_ns.max() - came.sent_ns.min()))
    lone = [_read(way, 1, 1) for _ in range(options.requests)]
    into.first_ms.append(statistics.median(float(one.times_ns[0, 0] - one.sent_ns[0]) / 1e6 for one in lone))


def _read(way: Way, streams: int, tokens: int) -> Streams:
    return read_streams(Question(way.port, "completions", streams, tokens, chunked=False))


def _cpu_s(pids: Iterable[int]) -> dict[int, float]:
    """Of those of these that live, and of this process, the client."""
    found = {0: cpu_seconds(0)}
    for pid in pids:
        with contextlib.suppress(OSError):
            found[pid] = cpu_seconds(pid)
    return found


def _goals(found: Mapping[str, Measured]) -> list[Goal]:
    """Each round by itself: whatever else the machine does then, it does to both."""
    direct, through = found[DIRECT], found[THROUGH]
    ratios = [far / near for near, far in zip(direct.cpu_us, through.cpu_us, strict=True)]
    later = [far - near for near, far in zip(direct.first_ms, through.first_ms, strict=True)]
    return [
        Goal(
            "CPU time of all processes per token, by that of the direct server",
            statistics.median(ratios),
            CPU_RATIO,
            "x",
        ),
        Goal("first token of a lone request, later by", statistics.median(later), FIRST_MS, "ms"),
    ]


if __name__ == "__main__":
    sys.exit(main())
