"""Sends requests when they are due and collects what comes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import uvloop

from scripts.lab.http import Client, Reply


@dataclass(frozen=True, slots=True)
class Planned:
    """A request in bytes, made before the clock runs."""

    data: bytes
    prompt_tokens: int | None


@dataclass(slots=True)
class Outcome:
    """One request. Times are real ones, the time scale is not applied."""

    prompt_tokens: int | None
    start_s: float = 0.0  # since the run began
    started_ns: int = 0
    queue_s: float = 0.0  # waited for others to end, where their number is limited
    late_s: float = 0.0  # the event loop came so late to it
    reply: Reply | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    outcomes: tuple[Outcome, ...]
    duration_s: float  # from the beginning to the last answer
    cpu_s: float  # of this process meanwhile


def run_load(
    client: Client,
    requests: Sequence[Planned],
    arrivals_s: Sequence[float],
    *,
    max_concurrency: int | None = None,
    timeout_s: float = 3600.0,
    progress: Callable[[], object] = lambda: None,
) -> Run:
    """`arrivals_s[i]` is when request `i` starts; later, where `max_concurrency` others are under way then.
    `progress` is called when a request has ended."""

    async def run() -> Run:
        free = asyncio.Semaphore(max_concurrency or len(requests) or 1)
        tasks: list[asyncio.Task[Outcome]] = []
        with _without_collector():
            cpu_s, began_ns = time.process_time(), time.monotonic_ns()
            for planned, due_s in zip(requests, arrivals_s, strict=True):
                while (early_s := due_s - (time.monotonic_ns() - began_ns) / 1e9) > 0:  # uvloop wakes up early
                    await asyncio.sleep(early_s)
                tasks.append(asyncio.create_task(serve(planned, due_s, free, began_ns)))
            outcomes = await asyncio.gather(*tasks)
            duration_s, cpu_s = (time.monotonic_ns() - began_ns) / 1e9, time.process_time() - cpu_s
        client.close()
        return Run(tuple(outcomes), duration_s, cpu_s)

    async def serve(planned: Planned, due_s: float, free: asyncio.Semaphore, began_ns: int) -> Outcome:
        outcome = Outcome(planned.prompt_tokens)
        came_s = (time.monotonic_ns() - began_ns) / 1e9
        async with free:
            outcome.started_ns = time.monotonic_ns()
            outcome.start_s = (outcome.started_ns - began_ns) / 1e9
            outcome.queue_s, outcome.late_s = outcome.start_s - came_s, came_s - due_s
            try:
                async with asyncio.timeout(timeout_s):
                    outcome.reply = await client.send(planned.data)
            except TimeoutError:
                outcome.error = f"no complete answer within {timeout_s:g} s"
            except OSError as error:
                outcome.error = str(error) or type(error).__name__
        progress()
        return outcome

    return uvloop.run(run())


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """A collection in the middle would be counted as the server's time."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
