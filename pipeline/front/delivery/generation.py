"""Serving one request, from its arrival to the last byte of its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

import numpy as np

from pipeline.front.delivery.admission import Admission
from pipeline.front.delivery.backend import Backend
from pipeline.front.delivery.deadline import MISSED, Deadline
from pipeline.front.delivery.job import (
    Begin,
    Event,
    Identity,
    Job,
    Part,
    ScoreReader,
    Text,
    events_of,
)
from pipeline.front.delivery.kept.answer import KeptAnswer, KeptExchange, error_of
from pipeline.front.delivery.kept.answers import TIMINGS, KeptAnswers
from pipeline.front.delivery.kept.journal import Found
from pipeline.front.delivery.kept.recall import (
    GeneratedText,
    ended_of,
    origins_of,
    over,
    recalled,
    remembered,
    unfinished,
)
from pipeline.front.delivery.live import CANCELLED, LiveRequests
from pipeline.front.delivery.progress import Progress
from pipeline.front.delivery.stream import PassOn, TokenStream
from pipeline.front.delivery.submission import Reservation, messages
from pipeline.front.delivery.tracing import TraceContext, Tracing, operation_of
from pipeline.front.http.account import Account
from pipeline.front.http.errors import SERVER, UNAVAILABLE, ApiError, ClientGone
from pipeline.front.http.exchange import Exchange, Header
from pipeline.front.settings import FrontSettings
from pipeline.stats import (
    KEY_NAME,
    AdapterCounters,
    Counters,
    FrontCounter,
    Histograms,
    KeyCounters,
    RequestHistogram,
    StatsReader,
)
from pipeline.wire.delta import FinishReason, PromptScores, unpack_delta, unpack_scores
from pipeline.wire.request import UNREACHABLE, Submit
from pipeline.wire.span import RequestSpan

REPLICA = b"x-ringserve-replica"  # with these, where there are several: the one that the first token comes from
WEIGHTS = b"x-ringserve-weights"  # with these: of each text FIRST=ID, and FIRST=ID;FIRST=ID… where they were changed

_UNBUFFERED = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))  # the latter is for nginx

_DEADLINES: Mapping[str | None, FrontCounter] = {
    MISSED: FrontCounter.DEADLINES_MISSED,
    UNREACHABLE: FrontCounter.DEADLINES_REFUSED,
}

Parse = Callable[[Identity], Awaitable[Job]]
"""Reads and parses the body. Raises ApiError, ClientGone."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What serving a request needs; one for all of them."""

    settings: FrontSettings
    backend: Backend
    admission: Admission
    counters: Counters
    adapters: AdapterCounters
    times: Histograms
    stats: StatsReader
    keys: KeyCounters
    tracing: Tracing | None  # None: there is no exporter
    kept: KeptAnswers
    live: LiveRequests = field(default_factory=LiveRequests)
    scores_turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def several(self) -> bool:
        """Replicas."""
        return self.backend.lanes.several


def wants_times(exchange: Exchange) -> bool:
    """Its client has asked for timings."""
    return exchange.headers.get(TIMINGS) == b"1"


_Taken = list[tuple[GeneratedText, list[Event]]]


class Generation:
    """All texts of a request are served, or none: an error of one of them is the answer to the request.

    Their tokens arrive in streams of their own, merged here with one wake-up for all that are ready. `serve` raises
    ApiError while a status can still be sent.
    """

    _job: Job
    _deadline: Deadline

    def __init__(self, exchange: Exchange, delivery: Delivery) -> None:
        self._exchange, self._delivery = exchange, delivery
        self._kept = exchange.answer if isinstance(exchange, KeptExchange) else None  # what the exchange writes to
        self._counts = counts = self._kept is None or self._kept.ended is None  # else a front before has, all of it
        self._progresses = [
            Progress(
                delivery.backend.new_id(), exchange, delivery.counters, delivery.times, delivery.stats, delivery.keys,
                counts=counts,
            )
        ]  # fmt: skip
        if isinstance(exchange, KeptExchange):
            exchange.on_failure = self.cancel
            self._progresses[0].arrival = exchange.arrival_ns
        self._trace = None if delivery.tracing is None or not counts else TraceContext.of(exchange)
        if self._trace is not None:
            exchange.common = [*exchange.common, self._trace.header()]
        self._live: list[GeneratedText] = []  # texts that have not ended
        self._streams: Sequence[TokenStream] = ()  # of all its texts
        self._reservation: Reservation | None = None
        self._cancelled: ApiError | None = None  # by its id
        self._head = b""  # of the stream, if it was made beforehand
        self._written_ns = 0  # when something was written to the client last; a token need not bring anything

    async def serve(self, parse: Parse) -> None:
        try:
            admission, live = self._delivery.admission, self._delivery.live
            with admission.request(self._exchange) as identity, live.known(self._exchange, self):
                self._job = await parse(identity)
                limit = self._delivery.settings.request_timeout_s
                self._deadline = Deadline(self._exchange, self._job, self._progresses[0].arrival, limit)
                await (self._run() if self._job.parts else self._answer_at_once())
        except ApiError as error:
            self._fail(error)
            raise
        except ClientGone as gone:
            self._note_rows()
            for progress in self._progresses:
                progress.cancel(str(gone))
            raise
        finally:
            if self._reservation is not None:
                self._reservation.settle(self._progresses)
            if self._delivery.tracing is not None and self._trace is not None:
                parts = self._job.parts if hasattr(self, "_job") else ()
                self._delivery.tracing.send(self._span(self._trace, parts))

    def cancel(self, error: ApiError) -> None:
        """From outside. Before its texts are queued it is noticed when they would be."""
        self._cancelled = error
        for text in self._live:
            text.stream.fail(error)

    async def _run(self) -> None:
        job, connection = self._job, self._exchange.connection
        try:
            if self._cancelled is not None:
                raise self._cancelled
            self._submit()
        except ApiError as error:
            raise job.writer.translate(error) from None
        self._delivery.backend.outbox.note_request(self._progresses[0].arrival)
        connection.on_lost.add(self._disconnect)
        try:
            async with asyncio.timeout(self._deadline.begin()):
                scored = any(part.scores for part in job.parts)
                if self._kept is not None and self._kept.found is not None:
                    found, self._kept.found = self._kept.found, None
                    await self._recall(self._kept, found, scored=scored)
                if scored:
                    await self._read_scores()
                await (self._stream() if job.streamed else self._collect())
        except TimeoutError:
            await self._break_off(job.writer.translate(self._deadline.error()))
        except asyncio.CancelledError:  # the grace period of a shutdown is over
            await self._break_off(ApiError(503, "the server is shutting down", kind=UNAVAILABLE))
        except ApiError as error:
            await self._break_off(job.writer.translate(error))
        finally:
            connection.on_lost.discard(self._disconnect)
            for text in self._live:
                self._delivery.backend.finish(text.stream, cancel=True)

    async def _answer_at_once(self) -> None:
        """Nothing is to be generated; but the model has to be there."""
        self._delivery.backend.submit([])
        writer = self._job.writer
        answer = (writer.tail(), writer.content_type) if self._job.streamed else (writer.whole(),)
        await self._exchange.respond(200, *answer)
        self._progresses[0].skip()

    # ---- its texts ----------------------------------------------------------------------------------------------

    def _submit(self) -> None:
        """Raises ApiError."""
        job, backend, progresses = self._job, self._delivery.backend, self._progresses
        progresses += [replace(progresses[0], request=backend.new_id()) for _ in range(job.texts - 1)]
        account = self._exchange.account
        waits = self._kept is None or self._kept.audience.attended
        sent = messages(job.parts, progresses, account, self._deadline.ns, background=not waits)
        if self._counts:
            self._count(account)
        streams = backend.submit(sent) if self._kept is None else self._submit_kept(self._kept, sent)
        self._streams = streams
        for stream in streams:
            stream.on_overrun = self._exchange.connection.abort
            stream.reports_acceptance = len(streams) > 1
        reads = [None if job.reader is None else job.reader(choice) for choice in range(job.texts)]
        every = zip(range(job.texts), job.writer.choices, streams, progresses, reads, strict=True)
        self._live = [GeneratedText(*one) for one in every]

    def _count(self, account: Account | None) -> None:
        """Raises ApiError 429."""
        job = self._job
        self._delivery.times.observe(RequestHistogram.TEXTS, job.texts)
        if account is not None:
            self._reservation = Reservation(account, job.parts, again=self._exchange.again)
        for part in job.parts:
            self._delivery.adapters.add(part.params.adapter, part.choices)

    def _submit_kept(self, kept: KeptAnswer, sent: Sequence[Submit]) -> list[TokenStream]:
        """So that the next front can do it again; or because this is the next one."""
        if self._exchange.connection.lost:
            raise ClientGone("its client did not come back")
        backend, pending = self._delivery.backend, self._job.pending
        if (found := kept.found) is None:
            streams = backend.submit(sent)
        else:
            sent = remembered(found, self._progresses)
            streams = backend.submit(unfinished(sent, ended_of(found)), again=True)
            live = {stream.request: stream for stream in streams}
            limit = self._delivery.settings.stream_buffer_tokens
            streams = [
                live.get(choice.request) or over(submit, choice, limit)
                for submit in sent
                for choice in submit.choices
            ]
        kept.open(self._job.writer.END, b"" if pending is None else pending(), sent)
        return streams

    def _disconnect(self, why: str) -> None:
        for text in self._live:
            text.stream.disconnect(why)

    async def _accepted(self) -> None:
        """Until all of several texts are in the queue: afterwards none can be refused, so a stream may begin."""
        while len(self._live) > 1 and not all(text.stream.accepted for text in self._live):
            for text in self._live:
                if text.stream.failure is not None:
                    raise text.stream.failure
            await self._woken()

    async def _read_scores(self) -> None:
        """Those of all prompts that are asked for: they come before the first token. Other requests have their
        turn between two pieces."""
        texts = iter(self._live)
        for text in self._live:
            text.stream.held = True
        for part in self._job.parts:
            first, *_ = islice(texts, part.choices)
            if part.scores:
                await self._read_prompt(first.stream, part.scores)
        for text in self._live:
            text.stream.held = False

    async def _read_prompt(self, stream: TokenStream, readers: Sequence[ScoreReader]) -> None:
        begun = complete = False
        while not complete:
            complete = bool(stream.tokens)
            records = stream.take_scores()
            if not begun and (records or complete):
                begun = True
                for reader in readers:
                    reader.begin(stream.first_id)
            for record in records:
                if stream.failure is not None:
                    raise stream.failure
                async with self._delivery.scores_turn:  # one record between two looks at the rings, whoever's it is
                    _pass_scores(unpack_scores(record), readers)
                    await asyncio.sleep(0)
            if not records and not complete:
                await self._woken()
        if stream.tokens[0] >= 0 and stream.scored < stream.prompt_tokens - 1:  # this must not happen, either
            raise ApiError(500, "a part of the answer was lost in the server", kind=SERVER)

    async def _take(self) -> _Taken:
        """Events of tokens that have arrived and were not passed on, at least one. Raises ApiError, ClientGone."""
        while not (taken := [(text, events) for text in self._live if (events := self._received(text))]):
            await self._woken()
        for text, _ in taken:
            if text.reason:
                self._delivery.backend.finish(text.stream, cancel=False)
        self._live = [text for text in self._live if not text.reason]
        return taken

    def _received(self, text: GeneratedText) -> list[Event]:
        stream, progress = text.stream, text.progress
        records = stream.take()
        deltas = [unpack_delta(record) for record in records]
        if not deltas:
            return []
        first = self._begin(text)
        if self._kept is not None:
            self._kept.note(records[:-1] if deltas[-1].reason is FinishReason.FAILED else records)
        if deltas[-1].reason is FinishReason.FAILED:
            stream.fail(ApiError(500, deltas.pop().text or "the model failed", kind=SERVER))
            if not deltas:
                stream.take()  # raises the failure, which otherwise stays in the stream, after the tokens before it
        else:
            text.reason = deltas[-1].reason
        progress.on_tokens(len(deltas), time.monotonic_ns())
        return first + (events_of(text.choice, deltas) if text.read is None else text.read(deltas))

    def _begin(self, text: GeneratedText) -> list[Event]:
        """The event before all others, if this is the first delta that is looked at."""
        if text.begun:
            return []
        stream, text.begun = text.stream, True
        text.progress.on_row(stream)
        if self._job.streamed:
            text.pass_on = self._passing_on(text)
        if self._kept is not None:
            self._kept.note_begin(stream.request, stream.prompt_tokens, stream.cached_tokens)
            self._note_origins(self._kept, stream, stream.weights)
        return [Begin(text.choice, stream.prompt_tokens, stream.cached_tokens)]

    def _note_origins(self, kept: KeptAnswer, stream: TokenStream, weights: Sequence[tuple[int, str]]) -> None:
        """These, and later ones as they come."""
        for first, one in weights:
            kept.note_origin(stream.request, first, one)
        stream.on_weights = partial(kept.note_origin, stream.request)

    async def _recall(self, kept: KeptAnswer, found: Found, *, scored: bool) -> None:
        """Write what a front before has written, from its tokens: to the same bytes. Scores of a prompt are not
        written down: what had them before its first token can't be made again."""
        if scored and found.records:
            raise ApiError(500, "an answer with scores of its prompt does not outlive the front", kind=SERVER)
        texts = {text.stream.request: text for text in self._live}
        taken, origins = list(recalled(found.records, texts)), origins_of(found)
        for text in texts.values():
            if text.begun:
                noted, stream = origins.get(text.stream.request, []), text.stream
                stream.computed_before(noted)
                self._note_origins(kept, stream, [one for one in stream.weights if one not in noted])
        self._live = [text for text in self._live if text.stream.live]
        for text in self._live:
            if text.begun and self._job.streamed:
                text.pass_on = self._passing_on(text)
        if not self._job.streamed:
            for text, events in taken:
                for event in events:
                    text.writer.keep(event)
        elif piece := _written(taken):
            await self._start()
            await self._exchange.write(piece)
        for text in texts.values():
            if text.reason:
                text.progress.finish(text.reason, 0 if text.read is None else text.read.calls)
        if found.ended is not None and found.ended.failure is not None:
            raise error_of(found.ended.failure)

    async def _woken(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        for text in self._live:
            text.stream.wake(waiter, text.pass_on)
        seconds = self._delivery.settings.stream_ping_s
        if seconds is None or not self._job.streamed or not self._job.writer.PING:
            await waiter
            return
        while not (await asyncio.wait((waiter,), timeout=seconds))[0]:
            await self._ping(seconds)

    async def _ping(self, seconds: float) -> None:
        """For proxies, unless something was written meanwhile."""
        if time.monotonic_ns() - self._written_ns > seconds * 1e9:
            await self._start()
            await self._exchange.ping(self._job.writer.PING)

    def _passing_on(self, text: GeneratedText) -> PassOn:
        """A function that writes tokens as they arrive, until the last one, and while the client keeps up."""
        choice, exchange, outbox, read = text.choice, self._exchange, self._delivery.backend.outbox, text.read
        write, on_tokens, kept = text.writer.write, text.progress.on_tokens, self._kept

        def pass_on(records: list[bytes], now_ns: int) -> bool:
            if not exchange.keeps_up:
                return False
            if kept is not None:
                kept.note(records)
            deltas = map(unpack_delta, records)
            if read is None:
                piece = b"".join([write(Text(choice, delta, 0, delta.text)) for delta in deltas])
            else:
                piece = b"".join(map(write, read(list(deltas))))
            if piece:  # a token may bring nothing yet
                exchange.write_soon(piece, outbox)
                self._written_ns = now_ns
            on_tokens(len(records), now_ns)
            return True

        return pass_on

    def _beginning(self, text: GeneratedText) -> PassOn:
        """As `_passing_on`, of the only text: its first tokens with the head, without waking the task."""
        exchange, outbox = self._exchange, self._delivery.backend.outbox

        def begin(records: list[bytes], now_ns: int) -> bool:
            if not exchange.keeps_up:
                return False
            deltas = list(map(unpack_delta, records))
            events = self._begin(text) + (events_of(text.choice, deltas) if text.read is None else text.read(deltas))
            text.stream.pass_on = text.pass_on
            head = b"" if exchange.started else self._head  # a ping may have begun
            exchange.begin_soon(head, b"".join(map(text.writer.write, events)), outbox)
            self._written_ns = now_ns
            text.progress.on_tokens(len(deltas), now_ns)
            return True

        return begin

    # ---- the answer ---------------------------------------------------------------------------------------------

    async def _stream(self) -> None:
        exchange, writer = self._exchange, self._job.writer
        if not self._live:  # all of it was made before
            self._measure()
            await exchange.end(writer.tail())
            return
        await self._accepted()
        if not wants_times(exchange):  # while there is time
            self._head = self._make_head()
            if len(self._live) == 1 and self._kept is None:
                self._live[0].pass_on = self._beginning(self._live[0])
        taken = await self._take()
        await self._start()
        while self._live:
            if piece := _written(taken):
                await exchange.write(piece)
                self._written_ns = time.monotonic_ns()
            self._account(taken)
            taken = await self._take()
        last = _written(taken)
        self._measure()
        await exchange.end(last + writer.tail())
        self._account(taken)

    async def _start(self) -> None:
        if not self._exchange.started:
            await self._exchange.begin(self._head or self._make_head())

    def _make_head(self) -> bytes:
        return self._exchange.head(200, self._job.writer.content_type, [*_UNBUFFERED, *self._headers()])

    async def _collect(self) -> None:
        every, writer = self._live, self._job.writer
        while self._live:
            for text, events in await self._take():
                for event in events:
                    text.writer.keep(event)
        self._measure()
        await self._exchange.respond(200, writer.whole(), headers=self._headers())
        self._account([(text, []) for text in every])

    def _measure(self) -> None:
        if self._job.measured is not None:
            origins = [stream.weights for stream in self._streams]
            times = replace(self._progresses[0].taken, origins=origins)
            self._job.measured(times if self._kept is None else self._kept.measured(times))

    def _account(self, taken: _Taken) -> None:
        """These events have been written to the socket."""
        for text, _ in taken:
            self._delivery.backend.outbox.record(text.stream.taken_ns)
            if text.reason:
                text.progress.finish(text.reason, 0 if text.read is None else text.read.calls)

    def _headers(self) -> list[Header]:
        if not wants_times(self._exchange):
            return []
        replica = [(REPLICA, b"%d" % self._live[0].stream.home)] if self._live and self._delivery.several else []
        return [*self._progresses[0].headers(), *replica, *_origins(self._streams)]

    async def _break_off(self, error: ApiError) -> None:
        if self._kept is not None:
            self._kept.note_failure(error)
        if not self._exchange.started:
            raise error
        self._fail(error)
        await self._exchange.end(self._job.writer.failure(error))

    def _fail(self, error: ApiError) -> None:
        if self._counts and (counter := _DEADLINES.get(error.code)) is not None:
            self._delivery.counters.add(counter)
        self._note_rows()
        for progress in self._progresses:
            if error.code == CANCELLED:
                progress.cancel("by its id")
            else:
                progress.fail(error.status, error.message)

    def _note_rows(self) -> None:
        """Of texts that end without a token, but had a row: their prompts have been computed, in part at least."""
        for text in self._live:
            if text.stream.waited_ns is not None:
                text.progress.on_row(text.stream)

    def _span(self, trace: TraceContext, parts: Sequence[Part]) -> RequestSpan:
        first, every, settings = self._progresses[0], self._progresses, self._delivery.settings
        params = parts[0].params if parts else None
        return RequestSpan(
            trace_id=trace.trace_id,
            span_id=trace.span_id,
            parent=trace.parent,
            operation=operation_of(self._exchange.path),
            model=settings.shown_model(params.adapter or None if params else None),
            response_id=self._exchange.seed,
            client_id=self._exchange.client_id.decode(),
            path=self._exchange.path,
            key=self._exchange.key[:KEY_NAME],
            stream=bool(parts) and self._job.streamed,
            texts=len(every),
            max_tokens=first.max_tokens,
            temperature=params.sampling.temperature if params else 0.0,
            top_p=params.sampling.top_p if params else 1.0,
            top_k=params.sampling.top_k if params else 0,
            began_ns=first.arrival,
            row_ns=0 if first.waited is None else first.arrival + first.waited,
            first_ns=first.first,
            last_ns=first.last,
            ended_ns=time.monotonic_ns(),
            input_tokens=sum(each.prompt for each in every if not each.repeats),
            cached_tokens=sum(each.cached for each in every if not each.repeats),
            output_tokens=sum(each.tokens for each in every),
            device_ns=sum(each.device_ns for each in every),
            outcomes=["failed" if each.outcome is None else each.outcome.name.lower() for each in every],
            message=next((each.message for each in every if each.message), ""),
        )


def _origins(streams: Sequence[TokenStream]) -> list[Header]:
    texts = [";".join([f"{first}={one}" for first, one in stream.weights if one]) for stream in streams]
    return [(WEIGHTS, ", ".join(texts).encode())] if any(texts) else []


def _pass_scores(scores: PromptScores, readers: Sequence[ScoreReader]) -> None:
    if np.isnan(scores.logprobs).any():
        raise ApiError(500, "the prompt could not be scored: the model's logits are not finite", kind=SERVER)
    for reader in readers:
        reader.add(scores)


def _written(taken: _Taken) -> bytes:
    return b"".join([text.writer.write(event) for text, events in taken for event in events])
