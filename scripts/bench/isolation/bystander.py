"""The bystander's process: a stream that goes on and on, `/health`, and new clients, while others do what they do."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from scripts.lab.http import Client
from scripts.verify.survival.streams import Job, Stream, read

HEALTH_S, NEWCOMER_S = 0.05, 0.25  # between two of them
PATIENCE_S = 20.0  # for what is under way when all is over
_WARM, _MORE = 5, 3  # tokens before and after
_RETRY_S = 0.05


@dataclass(frozen=True, slots=True)
class Question:
    port: int
    prompt: str
    tokens: int  # of a stream; the next follows when it has ended
    whole: bool = False  # to the end of the stream that runs at the end


@dataclass(frozen=True, slots=True)
class Track:
    """One stream of the bystander. `error`: it ended before its time."""

    times_s: tuple[float, ...]
    text: str
    ended: bool
    error: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """Something that was asked once. `seconds` to the answer, or to the failure."""

    begin_s: float
    seconds: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """Times are those of the monotonic clock."""

    begin_s: float
    end_s: float
    tracks: tuple[Track, ...]
    health: tuple[Probe, ...] = ()
    newcomers: tuple[Probe, ...] = ()


class BystanderError(Exception):
    """No stream is to be had though nobody does any harm."""


@dataclass(slots=True)
class Bystander:
    """Streams one after the other."""

    port: int
    job: Job
    streams: list[Stream] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            self.streams.append(stream := Stream())
            await read(self.port, self.job, stream)
            if stream.error:
                await asyncio.sleep(_RETRY_S)

    async def more(self, count: int) -> None:
        """Wait for so many tokens. Raises TimeoutError."""
        wanted = self._tokens() + count
        async with asyncio.timeout(PATIENCE_S):
            while self._tokens() < wanted:
                await asyncio.sleep(0.002)

    async def last(self) -> None:
        """Wait for the end of the stream that runs now. Raises TimeoutError."""
        stream = self.streams[-1]
        async with asyncio.timeout(PATIENCE_S):
            while stream.reason is None and not stream.error:
                await asyncio.sleep(0.002)

    def _tokens(self) -> int:
        return sum(len(stream.tokens) for stream in self.streams)

    def tracks(self) -> tuple[Track, ...]:
        return tuple(
            Track(tuple(stream.times_s), stream.text, stream.reason is not None, stream.error)
            for stream in self.streams
        )


def serve_bystander(pipe: Connection) -> None:
    """A `Question`, answered with "streams" or a BystanderError; "begin"; "end", answered with an `Observation`."""
    pipe.send("ready")
    while True:
        try:
            question: Question = pipe.recv()
        except EOFError:
            return
        gc.collect()
        asyncio.run(_observe(pipe, question))


async def _observe(pipe: Connection, question: Question) -> None:
    job = Job.completion(question.prompt, question.tokens)
    bystander = Bystander(question.port, job)
    task = asyncio.create_task(bystander.run())
    try:
        try:
            await bystander.more(_WARM)
        except TimeoutError:
            errors = {stream.error for stream in bystander.streams} - {""}
            return pipe.send(BystanderError(f"no stream within {PATIENCE_S:g} s: {', '.join(errors) or 'nothing'}"))
        pipe.send("streams")
        await asyncio.to_thread(pipe.recv)
        begin_s = time.monotonic()
        health, newcomers = await _probe(question, asyncio.to_thread(pipe.recv), bystander)
    finally:
        task.cancel()
    return pipe.send(Observation(begin_s, time.monotonic(), bystander.tracks(), tuple(health), tuple(newcomers)))


async def _probe(
    question: Question, end: Coroutine[Any, Any, Any], bystander: Bystander
) -> tuple[list[Probe], list[Probe]]:
    """Until `end`; then what is under way is waited for."""
    health, newcomers = Probes(HEALTH_S), Probes(NEWCOMER_S)
    health.start(lambda: ask_health(question.port))
    newcomers.start(lambda: ask_first_token(question.port))
    await end
    health.stop()
    newcomers.stop()
    with contextlib.suppress(TimeoutError):  # the gap that is still open tells
        await (bystander.last() if question.whole else bystander.more(_MORE))
    return await health.results(), await newcomers.results()


class Probes:
    """The same question again and again, at fixed times, whatever becomes of those before."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._asked: list[tuple[float, asyncio.Task[str]]] = []
        self._ticker: asyncio.Task[None] | None = None
        self._done_s: dict[asyncio.Task[str], float] = {}

    def start(self, ask: Callable[[], Coroutine[Any, Any, str]]) -> None:
        self._ticker = asyncio.create_task(self._tick(ask))

    async def _tick(self, ask: Callable[[], Coroutine[Any, Any, str]]) -> None:
        while True:
            task = asyncio.create_task(ask())
            task.add_done_callback(lambda done: self._done_s.setdefault(done, time.monotonic()))
            self._asked.append((time.monotonic(), task))
            await asyncio.sleep(self._every_s)

    def stop(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()

    async def results(self) -> list[Probe]:
        tasks = [task for _, task in self._asked]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=PATIENCE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return [self._probe(begin_s, task) for begin_s, task in self._asked]

    def _probe(self, begin_s: float, task: asyncio.Task[str]) -> Probe:
        seconds = self._done_s.get(task, time.monotonic()) - begin_s
        return Probe(begin_s, seconds, "no answer" if task.cancelled() else task.result())


async def ask_health(port: int) -> str:
    """On a connection of its own. What was wrong; empty for 200."""
    client = Client(f"http://127.0.0.1:{port}", keep_alive=False)
    try:
        reply = await client.send(client.request("GET", "/health"))
    except OSError as error:
        return repr(error)
    return "" if reply.status == 200 else f"status {reply.status}"


async def ask_first_token(port: int) -> str:
    """As a new client that asks for one token. What was wrong; empty if nothing."""
    stream = Stream()
    await read(port, Job.completion("I am new here.", 1), stream)
    return stream.error
