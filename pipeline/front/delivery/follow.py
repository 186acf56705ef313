"""Follows the launcher: attaches to the rings of each generation, and detaches from those of the one before."""

from __future__ import annotations

import asyncio

from pipeline.front.delivery.backend import Backend
from pipeline.front.settings import FrontRings
from pipeline.runtime.control_channel import ChannelError
from pipeline.runtime.generations import Control, Generation, blamed


async def follow(control: Control, backend: Backend) -> None:
    """Serve one generation after the other, until cancelled. Raises IpcError when rings can't be attached to."""
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
            control.waiting()
            last, generation = generation, await _next(control, came)
            if last is not None:
                backend.blame(blamed(generation.ended, last.number, "preprocess"))
            backend.attach(FrontRings(**generation.handles))
            control.ready(generation.number)
            await backend.closed.wait()
            await backend.detach()
    finally:
        loop.remove_reader(control.fileno())


async def _next(control: Control, came: asyncio.Event) -> Generation:
    while (generation := control.newest()) is None:
        came.clear()
        await came.wait()
    return generation
