"""Follows the launcher: attaches to the rings of each generation, and detaches from those of the one before."""

from __future__ import annotations

import asyncio

from pipeline.front.delivery.backend import Backend
from pipeline.front.settings import FrontRings
from pipeline.runtime.control_channel import ChannelError
from pipeline.runtime.generations import Control, Generation, Verdict, blamed
from pipeline.wire.topology import PREPROCESS, StageSpec


async def follow(control: Control, backend: Backend, front: StageSpec) -> None:
    """Serve all replicas of this launcher, each one generation of this front's lane after the other, until cancelled.
    Raises IpcError when rings can't be attached to."""
    control.on("verdict", lambda fields: backend.on_verdict(Verdict.from_fields(fields)))
    control.on("away", lambda fields: backend.on_away(fields["replica"]))
    control.on("proven", lambda fields: backend.on_proven(fields["replica"], fields["generation"]))
    came = {replica: asyncio.Event() for replica in sorted({ring.replica for ring in front.rings})}

    def take() -> None:
        try:
            control.take()
        except ChannelError:
            loop.remove_reader(control.fileno())  # the launcher is gone, and this process dies with it
        for event in came.values():
            event.set()

    loop = asyncio.get_running_loop()
    loop.add_reader(control.fileno(), take)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.Event().wait())  # a router has none
            for replica, event in came.items():
                group.create_task(_follow_one(control, backend, front, replica, event))
    finally:
        loop.remove_reader(control.fileno())


async def _follow_one(
    control: Control, backend: Backend, front: StageSpec, replica: int, came: asyncio.Event
) -> None:
    flows = {ring.key: ring.flow.name for ring in front.rings if ring.replica == replica}
    generation: Generation | None = None
    while True:
        control.waiting(replica)
        last, generation = generation, await _next(control, came, replica)
        if last is not None and not backend.lanes.several:
            backend.blame(blamed(generation.ended, last.number, PREPROCESS.name))
        rings = FrontRings(**{flows[key]: handle for key, handle in generation.handles.items()})
        about = replica, generation.number, generation.weights
        backend.attach(rings, *about, on_trial=generation.on_trial)
        control.ready(generation)
        await backend.lanes[replica].closed.wait()
        await backend.detach(replica)


async def _next(control: Control, came: asyncio.Event, replica: int) -> Generation:
    while (generation := control.newest(replica)) is None:
        came.clear()
        await came.wait()
    return generation
