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

Progress = Callable[[], object]
"""Called when a request has ended."""


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
    progress: Progress = lambda: None,
) -> Run:
    """`arrivals_s[i]` is when request `i` starts; later, where `max_concurrency` others are under way then."""
    return uvloop.run(_Load(client, max_concurrency, timeout_s, progress).run(requests, arrivals_s))


class _Load:
    def __init__(self, client: Client, limit: int | None, timeout_s: float, progress: Progress) -> None:
        self._client, self._timeout_s, self._progress = client, timeout_s, progress
        self._free = asyncio.Semaphore(limit) if limit else None
        self._began_ns = 0

    async def run(self, requests: Sequence[Planned], arrivals_s: Sequence[float]) -> Run:
        tasks: list[asyncio.Task[Outcome]] = []
        with _without_collector():
            cpu_s, self._began_ns = time.process_time(), time.monotonic_ns()
            for planned, due_s in zip(requests, arrivals_s, strict=True):
                await self._until(due_s)
                tasks.append(asyncio.create_task(self._serve(planned, due_s)))
            outcomes = await asyncio.gather(*tasks)
            duration_s, cpu_s = self._now_s(), time.process_time() - cpu_s
        self._client.close()
        return Run(tuple(outcomes), duration_s, cpu_s)

    def _now_s(self) -> float:
        return (time.monotonic_ns() - self._began_ns) / 1e9

    async def _until(self, due_s: float) -> None:
        remaining = due_s - self._now_s()
        if remaining > 0:
            await asyncio.sleep(remaining)

    async def _serve(self, planned: Planned, due_s: float) -> Outcome:
        outcome = Outcome(planned.prompt_tokens)
        came_s = self._now_s()
        async with self._free or contextlib.nullcontext():
            outcome.started_ns = time.monotonic_ns()
            outcome.start_s = (outcome.started_ns - self._began_ns) / 1e9
            outcome.queue_s, outcome.late_s = outcome.start_s - came_s, came_s - due_s
            await self._ask(planned, outcome)
        self._progress()
        return outcome

    async def _ask(self, planned: Planned, outcome: Outcome) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                outcome.reply = await self._client.send(planned.data)
        except TimeoutError:
            outcome.error = f"no complete answer within {self._timeout_s:g} s"
        except OSError as error:
            outcome.error = str(error) or type(error).__name__


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
