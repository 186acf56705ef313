"""Nodes and a router that Ray Serve runs, under streams of known text: an actor is killed, nodes come and go
with the load, and are upgraded. No stream may end early, and every text is compared.

    make test-scale                                                 Ray in an environment of its own; two minutes
    .cache/ray/bin/python -m scripts.verify.scale --parts kill --rounds 10
    .cache/ray/bin/python -m scripts.verify.scale --set pipeline.runner.cost_model.fixed_ms=22.5

kill      the process of a node's actor, in mid-stream; another node takes its place
upgrade   nodes get another setting, one after the other
scale     one node, then two under load, then one again while some streams go on

Exit status 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.launcher.certificates import make_certificates
from pipeline.ray.local import local_ray
from scripts.lab.arguments import count, words
from scripts.lab.errors import BenchError
from scripts.lab.processes import descendants
from scripts.verify.survival.load import Load, Tally, jobs, undisturbed
from scripts.verify.survival.session import EMULATED, parser_of

PARTS = ("kill", "upgrade", "scale")
ROWS = 16
SETTINGS = (
    f"model_config.decode_batch_size={ROWS}", "pa_config.num_blocks=1200", "pipeline.runner.cost_model.fixed_ms=10",
    "pipeline.log.level=warning",
)  # fmt: skip
_PATIENCE_S = 120.0
_LOOK_S = 0.2


@dataclass(slots=True)
class Cluster:
    """The applications, as they are deployed. `common`: what nodes and routers share."""

    common: dict[str, Any]
    port: int
    took_s: dict[str, list[float]] = field(default_factory=dict)

    def deploy_all(self) -> None:
        from pipeline.ray.application import deploy, directory, routers
        from pipeline.ray.settings import RouterSettings

        deploy(directory=directory)
        self.deploy_nodes(min_nodes=2, max_nodes=2)
        deploy(routers=routers(RouterSettings(**self.common, ports=[self.port], max_nodes=4)))

    def deploy_nodes(self, *settings: str, **options: Any) -> None:
        """Returns when as many run as should."""
        from pipeline.ray.application import deploy, nodes
        from pipeline.ray.settings import NodeSettings

        common = self.common | {"settings": [*self.common["settings"], *settings]}
        deploy(nodes=nodes(NodeSettings(**common, host="127.0.0.1", **options)))

    async def router(self, method: str) -> Any:
        from ray import serve

        from pipeline.ray.application import ROUTERS

        return await getattr(serve.get_app_handle(ROUTERS), method).remote()

    async def linked(self) -> set[str]:
        nodes = await self.router("nodes")
        return {each["node"] for each in nodes if each["state"] == "linked" and each["replicas_up"]}

    async def until(self, what: str, holds: Callable[[set[str]], bool]) -> set[str]:
        """The router's nodes, when they are as they should be. Raises BenchError."""
        began = time.monotonic()
        while not holds(nodes := await self.linked()):
            if time.monotonic() - began > _PATIENCE_S:
                raise BenchError(f"{what}: the router still has {sorted(nodes)} after {_PATIENCE_S:g} s")
            await asyncio.sleep(_LOOK_S)
        self.took_s.setdefault(what, []).append(time.monotonic() - began)
        return nodes


def actors_of_nodes() -> list[int]:
    """Pids: the parents of launchers that are nodes."""
    found = []
    for pid in descendants(os.getpid()):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"pipeline.launch" in command and b"pipeline.link.listen=" in command:
                found.append(int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1]))
        except OSError:  # it is gone
            continue
    return found


def _without(before: set[str]) -> Callable[[set[str]], bool]:
    return lambda nodes: not before <= nodes


def _two_besides(before: set[str]) -> Callable[[set[str]], bool]:
    return lambda nodes: len(nodes) == 2 and not nodes & before


async def kill(cluster: Cluster, rounds: int) -> None:
    for _ in range(rounds):
        before = await cluster.until("two nodes", lambda nodes: len(nodes) == 2)
        os.kill(actors_of_nodes()[0], signal.SIGKILL)
        await cluster.until("an actor was killed: its node is gone", _without(before))
        await cluster.until("there is another one", lambda nodes: len(nodes) == 2)


async def upgrade(cluster: Cluster, rounds: int) -> None:
    for number in range(rounds):
        before = await cluster.until("two nodes", lambda nodes: len(nodes) == 2)
        settings = f"pipeline.max_queue={300 + number}"
        await asyncio.to_thread(cluster.deploy_nodes, settings, min_nodes=2, max_nodes=2)
        await cluster.until("both are upgraded", _two_besides(before))


async def grow(cluster: Cluster) -> None:
    """From one node: the load wants two."""
    await cluster.until("scaled up, 1 to 2", lambda nodes: len(nodes) == 2)


async def shrink(cluster: Cluster) -> None:
    await cluster.until("scaled down, 2 to 1", lambda nodes: len(nodes) == 1)


async def run(options: argparse.Namespace, cluster: Cluster, port: int) -> Tally:
    work = jobs(options.streams, options.tokens)
    expected = await undisturbed(port, work)
    tally = Tally()
    if {"kill", "upgrade"} & {*options.parts}:
        async with _under(Load(port, work, expected), tally):
            for part, do in (("kill", kill), ("upgrade", upgrade)):
                if part in options.parts:
                    await do(cluster, options.rounds)
    if "scale" in options.parts:
        await _scale(options, cluster, port, tally)
    return tally


async def _scale(options: argparse.Namespace, cluster: Cluster, port: int, tally: Tally) -> None:
    """Some streams go on all the time; the others make the load."""
    work = jobs(options.streams, options.tokens)
    expected = await undisturbed(port, work)
    async with _under(Load(port, work[:3], expected[:3]), tally):
        delays = {"upscale_delay_s": 2, "downscale_delay_s": 4, "look_back_s": 4}
        await asyncio.to_thread(cluster.deploy_nodes, min_nodes=1, max_nodes=2, **delays)
        await shrink(cluster)
        async with _under(Load(port, work, expected), tally):
            await grow(cluster)
        await shrink(cluster)


class _under:  # noqa: N801 - reads as a word of the statement
    """While streams go on; at the end all of them have ended, and what was wrong is added."""

    def __init__(self, load: Load, into: Tally) -> None:
        self._load, self._into = load, into

    async def __aenter__(self) -> None:
        self._load.start()
        await asyncio.sleep(1.0)

    async def __aexit__(self, *_: object) -> None:
        await self._load.stop()
        one, into = self._load.tally, self._into
        for name in ("streams", "tokens", "lost", "doubled", "cut_off"):
            setattr(into, name, getattr(into, name) + getattr(one, name))
        into.wrong += one.wrong


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="ringserve-scale-") as folder, local_ray(cpus=64):
            make_certificates(Path(folder), ["127.0.0.1"])
            settings = [*SETTINGS, *options.set]
            common = {"model": str(EMULATED), "certificates": folder, "settings": settings, "drain_s": 20}
            cluster = Cluster(common, options.port)
            cluster.deploy_all()
            tally = asyncio.run(run(options, cluster, options.port))
            left = asyncio.run(cluster.router("nodes"))
    except (BenchError, ValueError) as error:
        print(f"scale: {error}", file=sys.stderr)
        return 1
    return _show(cluster, tally, left)


def _show(cluster: Cluster, tally: Tally, left: Sequence[dict[str, Any]]) -> int:
    for what, seconds in cluster.took_s.items():
        print(f"{what}: {', '.join(f'{each:.1f}' for each in seconds)} s")
    print(f"{tally.streams} streams, {tally.tokens} tokens; lost {tally.lost}, doubled {tally.doubled}")
    print(f"nodes at the end: {', '.join(each['node'] + ' ' + each['state'] for each in left)}")
    print(*tally.wrong, sep="\n")
    return int(bool(tally.wrong))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__, tokens=300)
    parser.add_argument("--parts", type=words("part", PARTS), default=PARTS, metavar="NAMES")
    parser.add_argument("--rounds", type=count, default=2, help="of actors that are killed, and of upgrades")
    parser.add_argument("--streams", type=count, default=24)
    parser.add_argument("--port", type=count, default=8845)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
