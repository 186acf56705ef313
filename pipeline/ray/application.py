"""Three Serve applications: nodes, routers, and a directory of the nodes for the routers. Tokens go from nodes to
routers over links, and from routers to clients over HTTP: never through Ray.

They are apart because Serve starts all deployments of an application anew whenever something of it changes. So nodes
are upgraded without routers, whose clients would notice. `configs/ray/serve.yaml` has all three.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from importlib.metadata import version
from typing import Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from pipeline.ray.child import Child, ChildError, described, free_port, links_of, load_of
from pipeline.ray.membership import SAID_S, Membership, View, is_stale, next_nodes
from pipeline.ray.policy import LOAD
from pipeline.ray.settings import NodeSettings, RouterSettings

log = logging.getLogger("ray.serve")

PREFIX = "ringserve-"
DIRECTORY, ROUTERS = f"{PREFIX}directory", f"{PREFIX}routers"
"""Names of applications; a router is `serve.get_app_handle(ROUTERS)`."""

_LOOK_S = 0.25  # how often a router looks for nodes
_CALL_S = 5.0
_START_S = 900.0  # a large model is read and compiled
_PATIENCE_S = 15.0  # of a router with nodes of which none answers, at first
_MARGIN_S = 15.0  # of a shutdown, beside the time to drain


class Directory:
    """Tells routers which nodes there are. When it is started anew, nodes say so again."""

    def __init__(self) -> None:
        self._members = Membership()

    def announce(self, address: str, release: str) -> None:
        self._members.announce(address, release, time.monotonic())

    def leave(self, address: str) -> None:
        self._members.leave(address, time.monotonic())

    def view(self, release: str) -> View:
        return self._members.view(release, time.monotonic())


class _Server:
    """Of an actor: a child, and what goes on beside it."""

    def __init__(self, unwell_s: float) -> None:
        self._unwell_s = unwell_s
        self._child: Child | None = None
        self._beside: asyncio.Task[None] | None = None

    @property
    def child(self) -> Child:
        assert self._child is not None  # it was started
        return self._child

    async def _start(self, arguments: list[str]) -> None:
        """Raises ChildError."""
        self._child = Child(arguments)
        try:
            await asyncio.to_thread(self._child.wait_ready, _START_S)
        except BaseException:
            self._child.end(0)
            raise

    async def _call(self, method: str, *arguments: object) -> Any:
        """Of the directory. Raises TimeoutError, or what Ray does when it is gone."""
        async with asyncio.timeout(_CALL_S):
            return await getattr(serve.get_app_handle(DIRECTORY), method).remote(*arguments)

    async def check_health(self) -> None:
        await asyncio.to_thread(self.child.check, self._unwell_s)

    async def _stop_beside(self) -> None:
        if self._beside is not None:
            self._beside.cancel()
            await asyncio.wait([self._beside])


class Node(_Server):
    """A server for routers, with all of a machine's devices that it asks for."""

    async def __init__(self, settings: NodeSettings) -> None:  # type: ignore[misc]  # Serve awaits it
        super().__init__(settings.unwell_s)
        self._settings = settings
        host = settings.host or ray.util.get_node_ip_address()
        listen = f"pipeline.link.listen={_with_port(host, 0)}"
        await self._start(settings.launch("node", listen))
        (self.address,) = self.child.told["links"]
        self._beside = asyncio.create_task(self._announce())

    async def _announce(self) -> None:
        """Until it leaves."""
        while True:
            with contextlib.suppress(Exception):  # Ray is busy, or the directory is being started anew
                await self._call("announce", self.address, version("ringserve"))
            await asyncio.sleep(SAID_S)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        metrics = await asyncio.to_thread(self.child.metrics)
        return {LOAD: load_of(metrics, self._settings.rows_used)}

    async def __del__(self) -> None:
        """Routers send nothing more; what is here may end. The rest goes on elsewhere when the links close."""
        if self._child is None:
            return
        await self._stop_beside()
        with contextlib.suppress(Exception):
            await self._call("leave", self.address)
        until = time.monotonic() + self._settings.drain_s
        await asyncio.sleep(4 * _LOOK_S)  # until routers have seen it
        while time.monotonic() < until and await asyncio.to_thread(self._is_used):
            await asyncio.sleep(_LOOK_S)
        await asyncio.to_thread(self.child.end, _MARGIN_S)

    def _is_used(self) -> bool:
        try:
            return bool(sum(self.child.metrics()["router_requests"]))
        except (ChildError, KeyError):
            return False


class Router(_Server):
    """What clients connect to. It is told of nodes that come and go."""

    async def __init__(self, settings: RouterSettings) -> None:  # type: ignore[misc]  # likewise
        super().__init__(settings.unwell_s)
        self._settings, self._most = settings, settings.max_nodes
        self._described, self._linked = list[dict[str, Any]](), dict[str, bool]()
        patience = _PATIENCE_S
        while not await self._begin(patience):
            patience *= 2  # this machine may be slow
        self._beside = asyncio.create_task(self._follow())

    async def _begin(self, patience_s: float) -> bool:
        """With the nodes that are here; false, with nothing left of it, if others had better be tried. Raises
        ChildError."""
        settings, port = self._settings, await self._free_port()
        first, since = await self._first_nodes(), time.monotonic()
        where = (
            f"pipeline.hosts=[{settings.host}]",
            f"serving_config.server_port={port}",
            f"pipeline.max_nodes={self._most}",
            f"pipeline.nodes=[{', '.join(first)}]",
        )
        self._child, self._linked = Child(settings.launch("router", *where)), dict.fromkeys(first, False)
        try:
            while not await asyncio.to_thread(self._child.becomes_ready, SAID_S):
                if await self._is_stale(time.monotonic() - since, patience_s):
                    log.warning("the router begins anew: it had no node of %s", ", ".join(first))
                    await asyncio.to_thread(self._child.end, _MARGIN_S)
                    return False
        except BaseException:
            self._child.end(0)
            raise
        return True

    async def _is_stale(self, waited_s: float, patience_s: float) -> bool:
        """Raises ChildError when it has waited too long."""
        if waited_s > _START_S:
            raise ChildError(f"the router had no node after {_START_S:g} s")
        with contextlib.suppress(Exception):  # as in `Node._announce`
            return is_stale(self._linked, await self._call("view", version("ringserve")), waited_s, patience_s)
        return False

    async def _free_port(self) -> int:
        """One whose actor was killed drains, and has its port until then. At last one whose error is told."""
        until = time.monotonic() + self._settings.drain_s + _MARGIN_S
        while (port := free_port(self._settings.host, self._settings.ports)) is None and time.monotonic() < until:
            await asyncio.sleep(_LOOK_S)
        return self._settings.ports[-1] if port is None else port

    async def urls(self) -> dict[str, str]:
        """Where it serves: clients, and operators."""
        return {"api": self.child.told["api"][0], "operators": self.child.operators}

    async def nodes(self) -> list[dict[str, Any]]:
        """As it sees them."""
        return self._described

    async def _first_nodes(self) -> list[str]:
        while True:
            with contextlib.suppress(Exception):  # as in `Node._announce`
                view: View = await self._call("view", version("ringserve"))
                if view.here:
                    return [*view.here][: self._most]
            await asyncio.sleep(_LOOK_S)

    async def _follow(self) -> None:
        """Until it is shut down. A router that is not told anything keeps what it has."""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                view: View = await self._call("view", version("ringserve"))
                nodes = next_nodes(self._linked, view, self._most)
                answer = await asyncio.to_thread(self.child.ask, "/admin/nodes", {"nodes": nodes})
            except Exception as error:  # noqa: BLE001 - Ray may raise anything; the next look may find it well
                log.warning("the router could not be told of its nodes: %s", error)
                await asyncio.sleep(SAID_S)
                continue
            self._described = described(answer)
            self._linked = {node: up for node, up in links_of(self._described).items() if node in nodes}

    async def __del__(self) -> None:
        """It takes nothing new, and ends with the last of its requests."""
        if self._child is not None:
            await self._stop_beside()
            await asyncio.to_thread(self.child.end, self._settings.drain_s + _MARGIN_S)


def _with_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _scaling(settings: NodeSettings) -> dict[str, Any]:
    if settings.max_nodes <= settings.min_nodes:
        return {"num_replicas": settings.min_nodes}
    config = AutoscalingConfig(
        min_replicas=settings.min_nodes,
        max_replicas=settings.max_nodes,
        upscale_delay_s=settings.upscale_delay_s,
        downscale_delay_s=settings.downscale_delay_s,
        look_back_period_s=settings.look_back_s,
        metrics_interval_s=min(10.0, settings.look_back_s / 2),
        policy=AutoscalingPolicy(policy_function="pipeline.ray.policy:scale"),
    )
    return {"autoscaling_config": config}


def _watched(drain_s: float) -> dict[str, float]:
    return {
        "health_check_period_s": 2.0,
        "health_check_timeout_s": 10.0,
        "graceful_shutdown_timeout_s": drain_s + 2 * _MARGIN_S,
    }


directory = serve.deployment(Directory).options(ray_actor_options={"num_cpus": 0}).bind()


def nodes(settings: NodeSettings) -> serve.Application:
    needs: dict[str, Any] = {"num_cpus": settings.cpus}
    if settings.npus:
        needs["resources"] = {"NPU": settings.npus}
    surge, watched = settings.surge_percent, _watched(settings.drain_s)
    made = serve.deployment(Node).options(
        ray_actor_options=needs, max_surge_percent=surge, **watched, **_scaling(settings)
    )
    return made.bind(settings)


def routers(settings: RouterSettings) -> serve.Application:
    watched = _watched(settings.drain_s)
    made = serve.deployment(Router).options(
        ray_actor_options={"num_cpus": 0}, num_replicas=settings.routers, **watched
    )
    return made.bind(settings)


def deploy(**applications: serve.Application) -> None:
    """By their names: `directory`, `nodes`, `routers`. Returns when they run; those that run already are replaced."""
    for name, application in applications.items():
        serve.run(application, name=f"{PREFIX}{name}", route_prefix=None)
