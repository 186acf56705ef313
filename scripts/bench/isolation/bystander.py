"""The bystander's process: a stream that goes on and on, `/health`, and new clients, while others do what they do."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

from scripts.lab.http import Client
from scripts.lab.workers import answer_each
from scripts.verify.survival.streams import Job, Stream, read

HEALTH_S, NEWCOMER_S = 0.05, 0.25  # between two of them
PATIENCE_S = 20.0  # for what is under way when all is over
_WARM, _MORE = 5, 3  # tokens before and after
_RETRY_S, _LOOK_S = 0.05, 0.002


@dataclass(frozen=True, slots=True)
class Question:
    port: int
    prompt: str
    tokens: int  # of a stream; the next follows when it has ended
    whole: bool = False  # to the end of the stream that runs at the end


@dataclass(frozen=True, slots=True)
class Probe:
    """Something that was asked once. `seconds` to the answer, or to the failure."""

    begin_s: float
    seconds: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """Times are those of the monotonic clock. A stream with an error ended before its time."""

    begin_s: float
    end_s: float
    streams: tuple[Stream, ...]
    health: tuple[Probe, ...] = ()
    newcomers: tuple[Probe, ...] = ()


class BystanderError(Exception):
    """No stream is to be had though nobody does any harm."""


def serve_bystander(pipe: Connection) -> None:
    """A `Question`, answered with "streams" or a BystanderError; "begin"; "end", answered with an `Observation`."""
    answer_each(pipe, lambda question: asyncio.run(_observe(pipe, question)))


async def _observe(pipe: Connection, question: Question) -> None:
    gc.collect()
    streams: list[Stream] = []
    task = asyncio.create_task(_stream_on(question, streams))
    try:
        try:
            await _more(streams, _WARM)
        except TimeoutError:
            errors = {stream.error for stream in streams} - {""}
            return pipe.send(BystanderError(f"no stream within {PATIENCE_S:g} s: {', '.join(errors) or 'nothing'}"))
        pipe.send("streams")
        await asyncio.to_thread(pipe.recv)
        begin_s, port = time.monotonic(), question.port
        health = Probes(HEALTH_S, lambda: ask_health(port))
        newcomers = Probes(NEWCOMER_S, lambda: ask_first_token(port))
        await asyncio.to_thread(pipe.recv)
        health.stop()
        newcomers.stop()
        with contextlib.suppress(TimeoutError):  # the gap that is still open is counted
            await (_end_of(streams[-1]) if question.whole else _more(streams, _MORE))
        probes = await health.results(), await newcomers.results()
    finally:
        task.cancel()
    return pipe.send(Observation(begin_s, time.monotonic(), tuple(streams), *probes))


async def _stream_on(question: Question, streams: list[Stream]) -> None:
    """One after the other."""
    job = Job.completion(question.prompt, question.tokens)
    while True:
        streams.append(stream := Stream())
        await read(question.port, job, stream)
        if stream.error:
            await asyncio.sleep(_RETRY_S)


async def _more(streams: list[Stream], count: int) -> None:
    """Wait for so many tokens. Raises TimeoutError."""
    wanted = _tokens(streams) + count
    await _until(lambda: _tokens(streams) >= wanted)


async def _end_of(stream: Stream) -> None:
    """Raises TimeoutError."""
    await _until(lambda: stream.ended or bool(stream.error))


def _tokens(streams: list[Stream]) -> int:
    return sum(len(stream.tokens) for stream in streams)


async def _until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not done():
            await asyncio.sleep(_LOOK_S)


class Probes:
    """The same question again and again, at fixed times until `stop`, whatever becomes of those before. `ask` says
    what was wrong; empty if nothing."""

    def __init__(self, every_s: float, ask: Callable[[], Awaitable[str]]) -> None:
        self._asked: list[asyncio.Task[Probe]] = []
        self._ticker = asyncio.create_task(self._tick(every_s, ask))

    async def _tick(self, every_s: float, ask: Callable[[], Awaitable[str]]) -> None:
        while True:
            self._asked.append(asyncio.create_task(_probe(ask)))
            await asyncio.sleep(every_s)

    def stop(self) -> None:
        self._ticker.cancel()

    async def results(self) -> tuple[Probe, ...]:
        return tuple(await asyncio.gather(*self._asked))


async def _probe(ask: Callable[[], Awaitable[str]]) -> Probe:
    begin_s = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE_S):
            error = await ask()
    except TimeoutError:
        error = "no answer"
    return Probe(begin_s, time.monotonic() - begin_s, error)


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
