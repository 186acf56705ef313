"""Serving one request: submit it, and write its tokens as they arrive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from itertools import islice

from pipeline.front.delivery.backend import Backend
from pipeline.front.delivery.job import Job, Part
from pipeline.front.delivery.progress import Progress
from pipeline.front.delivery.stream import PassOn, TokenStream
from pipeline.front.http.errors import SERVER, TIMED_OUT, UNAVAILABLE, ApiError
from pipeline.front.http.exchange import Exchange, Header
from pipeline.front.metrics.spans import Spans
from pipeline.front.settings import FrontSettings
from pipeline.stats import StatsReader
from pipeline.wire.delta import Delta, FinishReason, is_last, unpack_delta
from pipeline.wire.request import Choice, Submit, choose_seeds

TIMINGS = b"x-ringserve-timings"  # "1": return the headers x-…-ms


class Generation:
    """One request from its submission to its last byte. `run` raises ApiError while a status can still be sent.

    This one has one text; `ManyTexts` is for those with several.
    """

    _tokens: TokenStream

    def __init__(
        self, exchange: Exchange, job: Job, backend: Backend, progress: Progress, stats: StatsReader, spans: Spans
    ) -> None:
        self._exchange, self._job, self._backend = exchange, job, backend
        self._progress, self._stats, self._spans = progress, stats, spans
        self._finished = False

    async def run(self, settings: FrontSettings) -> None:
        job, connection = self._job, self._exchange.connection
        try:
            disconnect = self._open()
        except ApiError as error:
            raise job.answer.translate(error) from None
        connection.on_lost.add(disconnect)
        try:
            async with asyncio.timeout(settings.request_timeout_s):
                await (self._stream() if job.streamed else self._collect())
        except TimeoutError:
            message = f"the request took longer than {settings.request_timeout_s:g} s"
            await self._break_off(ApiError(504, message, kind=TIMED_OUT))
        except asyncio.CancelledError:  # the grace period of a shutdown is over
            await self._break_off(ApiError(503, "the server is shutting down", kind=UNAVAILABLE))
        except ApiError as error:
            await self._break_off(job.answer.translate(error))
        finally:
            connection.on_lost.discard(disconnect)
            self._close()

    def _open(self) -> Callable[[str], None]:
        """Submit the request. Returns a function to call, with the reason, when the client is gone."""
        (stream,) = self._submit([self._progress])
        self._tokens = stream
        return stream.disconnect

    def _submit(self, progresses: Sequence[Progress]) -> list[TokenStream]:
        """One stream for each text."""
        left = iter(progresses)
        streams = self._backend.submit([_message(part, list(islice(left, part.choices))) for part in self._job.parts])
        for choice, stream in zip(self._job.answer.choices, streams, strict=True):
            choice.prompt = stream
            stream.on_overrun = self._exchange.connection.abort
        return streams

    def _close(self) -> None:
        self._backend.finish(self._tokens, cancel=not self._finished)

    async def _stream(self) -> None:
        answer, exchange, stream = self._job.answer, self._exchange, self._tokens
        event = answer.choices[0].event
        deltas = await self._next(stream)
        await self._start()
        while deltas[-1].reason is FinishReason.NONE:
            await exchange.write(b"".join(map(event, deltas)))
            self._written(stream.taken_ns)
            deltas = await self._next(stream, self._pass_on(stream))
        self._finished = True
        await exchange.end(b"".join([*map(event, deltas), answer.tail()]))
        self._written(stream.taken_ns)
        self._progress.finish(deltas[-1])

    def _pass_on(self, stream: TokenStream) -> PassOn:
        """A function that writes tokens as they arrive, until the last one, and while the client keeps up."""
        exchange, event, progress = self._exchange, self._job.answer.choices[0].event, self._progress
        outbox = self._backend.outbox

        def pass_on(records: list[bytes]) -> bool:
            if is_last(records[-1]) or not exchange.keeps_up:
                return False
            exchange.write_soon(b"".join([event(unpack_delta(record)) for record in records]), outbox)
            progress.on_tokens(len(records))
            return True

        return pass_on

    async def _start(self) -> None:
        headers = [(b"cache-control", b"no-cache"), *self._headers()]
        await self._exchange.start(200, self._job.answer.content_type, headers)

    async def _collect(self) -> None:
        answer, stream = self._job.answer, self._tokens
        choice = answer.choices[0]
        while not self._finished:
            deltas = await self._next(stream)
            for delta in deltas:
                choice.add(delta)
            self._finished = deltas[-1].reason is not FinishReason.NONE
        await self._exchange.respond(200, answer.whole(), headers=self._headers())
        self._written(stream.taken_ns)
        self._progress.finish(deltas[-1])

    async def _next(self, stream: TokenStream, pass_on: PassOn | None = None) -> list[Delta]:
        """Tokens that have arrived and were not passed on, at least one. Raises ApiError, ClientGone."""
        deltas = self._received(stream, await stream.take(pass_on), self._progress)
        return deltas or await self._next(stream)  # raises the model's failure

    def _received(self, stream: TokenStream, records: list[bytes], progress: Progress) -> list[Delta]:
        """The records, unpacked. A failure of the model stays in the stream, after the tokens before it."""
        deltas = [unpack_delta(record) for record in records]
        progress.prompt, progress.waited = stream.prompt_tokens, stream.waited_ns
        if deltas[-1].reason is FinishReason.FAILED:
            self._finished = True
            stream.fail(ApiError(500, deltas.pop().text or "the model failed", kind=SERVER))
        if deltas:
            progress.on_tokens(len(deltas))
        return deltas

    def _written(self, since_ns: int) -> None:
        self._progress.on_written(since_ns)
        if self._spans.wanted:
            self._spans.add(since_ns, time.monotonic_ns())

    def _headers(self) -> list[Header]:
        if self._exchange.headers.get(TIMINGS) == b"1":
            return self._progress.headers(self._stats)
        return []

    async def _break_off(self, error: ApiError) -> None:
        if not self._exchange.started:
            raise error
        self._fail(error)
        await self._exchange.end(self._job.answer.failure(error))

    def _fail(self, error: ApiError) -> None:
        self._progress.fail(error.status, error.message)


def _message(part: Part, progresses: Sequence[Progress]) -> Submit:
    for progress in progresses:
        progress.max_tokens = part.params.max_tokens
    seeds = choose_seeds(part.params, part.choices)
    choices = [Choice(progress.request, seed) for progress, seed in zip(progresses, seeds, strict=True)]
    return Submit.of(
        choices, part.prompt, part.params, add_special=part.add_special, arrival_ns=progresses[0].arrival
    )
