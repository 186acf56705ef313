"""Follows the launcher: attaches to the rings of each generation, and detaches from those of the one before."""

from __future__ import annotations

import asyncio

from pipeline.front.delivery.backend import Backend
from pipeline.front.settings import FrontRings
from pipeline.runtime.control_channel import ChannelError
from pipeline.runtime.generations import Control, Generation, blamed
from pipeline.wire.topology import PREPROCESS, StageSpec


async def follow(control: Control, backend: Backend, front: StageSpec, replica: int = 0) -> None:
    """Serve one generation of this front's lane to a replica after the other, until cancelled. Raises IpcError when
    rings can't be attached to."""
    lane = {ring.key: ring.flow.name for ring in front.rings if ring.replica == replica}
    came = asyncio.Event()
    generation: Generation | None = None

    def take() -> None:
        try:
            control.take()
        except ChannelError:
            loop.remove_reader(control.fileno())  # the launcher is gone, and this process dies with it
        came.set()

    loop = asyncio.get_running_loop()
    loop.add_reader(control.fileno(), take)
    try:
        while True:
            control.waiting(replica)
            last, generation = generation, await _next(control, came, replica)
            if last is not None:
                backend.blame(blamed(generation.ended, last.number, PREPROCESS.name))
            backend.attach(FrontRings(**{lane[key]: handle for key, handle in generation.handles.items()}))
            control.ready(generation)
            await backend.closed.wait()
            await backend.detach()
    finally:
        loop.remove_reader(control.fileno())


async def _next(control: Control, came: asyncio.Event, replica: int) -> Generation:
    while (generation := control.newest(replica)) is None:
        came.clear()
        await came.wait()
    return generation
