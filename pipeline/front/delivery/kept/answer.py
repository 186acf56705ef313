"""An answer that is kept apart from its client's connection, which may break and come back.

Whoever makes the answer writes it here, event by event; clients read it from any event on, while it is made and for
some time afterwards. An event is known by its position, from 0, in server-sent events by their `id`. Since an answer
is a pure function of its request and its tokens, a front that makes it again comes to the same events.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import msgspec

from pipeline.front.delivery.job import Times
from pipeline.front.delivery.kept.audience import Audience
from pipeline.front.delivery.kept.journal import Begun, Ended, Failure, Found, Journal, Opened, Origin, Tried
from pipeline.front.delivery.kept.written import Written
from pipeline.front.http.errors import SERVER, UNAVAILABLE, ApiError, ClientGone
from pipeline.front.http.exchange import JSON, BodyMemory, Exchange, Header
from pipeline.front.http.line import Line
from pipeline.front.http.request_parser import Head
from pipeline.front.http.responses import Outbox
from pipeline.front.settings import FrontSettings
from pipeline.wire.request import FAILS_TWICE, Submit

log = logging.getLogger("ringserve.front")

_NO_ROOM: Final = "there is no room left to keep this answer (pipeline.kept_bytes)"

Make = Callable[[Exchange], Awaitable[None]]
"""Makes an answer, as for any exchange. Raises ApiError, ClientGone."""


class Keeper(Protocol):
    """Of all answers that are kept."""

    journal: Journal

    def grew(self, size: int) -> None:
        """An answer, by so many bytes beside what the journal counts."""
        ...

    def over(self, answer: KeptAnswer) -> None:
        """It is complete, or has failed."""
        ...

    def drop(self, answer: KeptAnswer) -> None: ...


class DetachedLine(Line):
    """The line of a request without a connection: it is lost when its clients do not come back."""

    def __init__(self, settings: FrontSettings) -> None:
        super().__init__(settings)
        self.client, self.port = "", 0

    def pace_reading(self) -> None:
        pass

    def answered(self) -> None:
        pass

    def _probe(self) -> None:
        pass

    def abort(self) -> None:
        self.lose("the connection was closed")

    def lose(self, why: str) -> None:
        self._why_lost = why
        self.connection_lost(None)


class KeptAnswer:
    """`seconds`: how long it goes on without a client, and is kept afterwards. `asked`: its client has asked for it
    to be kept."""

    def __init__(
        self, exchange: KeptExchange, key: str, seconds: float, keeper: Keeper, *, asked: bool = True
    ) -> None:
        self.seed, self.key, self.seconds, self.asked = exchange.seed, key, seconds, asked
        self.exchange, self.keeper = exchange, keeper
        self.writer = keeper.journal.writer()
        self.note: Callable[[list[bytes]], None] = self.writer.append  # they are in the journal when it returns
        self.is_open = False  # its request was sent to preprocess
        self.found: Found | None = None  # what a front before has left, until the answer was made again
        self.ended: Ended | None = None
        self.texts = 1  # that it has in the queue, or that run
        self.size = 0
        self.pending = b""  # what stands for it until it is complete
        self.written = Written(self.seed)
        self.audience = Audience(self.written, seconds, self)
        self._times: Times | None = None
        self._failure: Failure | None = None
        self._task: asyncio.Task[None] | None = None
        self._dropped = False  # the keeper does not count it any more
        self.proof: asyncio.Event | None = None  # see `prove`
        exchange.answer = self

    # ---- while it is made -----------------------------------------------------------------------------------------

    @property
    def begun(self) -> bool:
        """Somebody makes it."""
        return self._task is not None

    @property
    def barren(self) -> int:
        """See `Opened`; of one that is to be made again."""
        return 0 if self.found is None else self.found.opened.barren

    def resume(self, found: Found, barren: int) -> None:
        """It is made again, behind what a front before has left."""
        found.opened = msgspec.structs.replace(found.opened, barren=barren, recorded=len(found.records))
        self.found, self.is_open = found, True
        self.ended, self.asked = found.ended, found.opened.asked
        if self.ended is not None and self.ended.failure is not None and self.ended.failure.message == FAILS_TWICE:
            self.written.error = error_of(self.ended.failure)

    def refuse(self, error: ApiError) -> None:
        """It is not made again."""
        self.written.error, self.found = error, None
        self._conclude(failure_of(error))

    def begin(self, make: Make) -> None:
        self._task = asyncio.create_task(self._make(make))

    async def _make(self, make: Make) -> None:
        try:
            await make(self.exchange)
        except ApiError as error:
            told = bool(self.audience)
            self._fail(error)
            if told:
                self.keeper.drop(self)
        except asyncio.CancelledError:
            self._fail(ApiError(503, "the server is shutting down", kind=UNAVAILABLE))
            raise
        except ClientGone:
            self._fail(ApiError(503, "the request was cancelled", kind=UNAVAILABLE))
            self.keeper.drop(self)
        except Exception:
            log.exception("%s failed", self.exchange.path)
            self._fail(ApiError(500, "internal error", kind=SERVER))
        finally:
            self.keeper.over(self)

    def _fail(self, error: ApiError) -> None:
        if not self.written.over:
            self.written.error = error
            self._conclude(failure_of(error))
        self.audience.wake()

    def open(self, end: bytes, pending: bytes, submits: Sequence[Submit]) -> None:
        """Its request is sent to preprocess. `end`: of its events."""
        self.written.end_of_event, self.pending = end, pending
        if not self.is_open:
            exchange = self.exchange
            opened = Opened(
                self.seed, exchange.created, exchange.arrival_ns, exchange.path, exchange.kept_headers, self.key,
                exchange.content or b"", self.seconds, tuple(submit.pack() for submit in submits), asked=self.asked,
            )  # fmt: skip
            exchange.content, self.is_open = None, True
            self.texts = sum(len(submit.choices) for submit in submits)
            self.note([opened.pack()])
        self.audience.wake()

    def note_begin(self, request: int, prompt_tokens: int, cached_tokens: int) -> None:
        self.note([Begun(request, prompt_tokens, cached_tokens).pack()])

    def note_origin(self, request: int, first: int, weights: str) -> None:
        """That is no proof that anything comes of it."""
        if weights and not self._dropped:
            self.writer.append([Origin(request, first, weights).pack()])

    def prove(self) -> asyncio.Event:
        """Set as soon as something comes of it: from now on it is tried alone."""
        self.writer.append([Tried().pack()])
        self.proof, self.note = asyncio.Event(), self._note_proof
        return self.proof

    def _note_proof(self, records: list[bytes]) -> None:
        assert self.proof is not None
        self.proof.set()
        self.note = self.writer.append
        self.note(records)

    def _grow(self, size: int) -> None:
        self.size += size
        if not self._dropped:
            self.keeper.grew(size)

    def overflow(self) -> None:
        """There is no room for more of it."""
        self.exchange.fail(ApiError(503, _NO_ROOM, kind=UNAVAILABLE))

    def measured(self, times: Times) -> Times:
        """Those of the first time that it was complete."""
        if self.ended is not None and self.ended.times is not None:
            return self.ended.times
        self._times = times
        return times

    def note_failure(self, error: ApiError) -> None:
        """With which it is about to end."""
        self._failure = failure_of(error)

    def _conclude(self, failure: Failure | None) -> None:
        if self.ended is None:
            self.ended = Ended(self._times, failure)
            if self.is_open:
                self.note([self.ended.pack()])

    # ---- what is written ------------------------------------------------------------------------------------------

    def add(self, piece: bytes, outbox: Outbox | None = None) -> None:
        """Whole events. With an outbox they go to clients that wait in this pass."""
        written, audience = self.written, self.audience
        before = len(written.events)
        made, size = written.add(piece)
        self._grow(size)
        if audience:
            audience.pass_on(made, before, outbox)
        if self._dropped:
            written.trim(audience.position)

    def finish(self, piece: bytes) -> None:
        """The last events."""
        self._conclude(self._failure)
        if piece:
            self.add(piece)
        self.written.complete = True
        self.audience.wake()

    def finish_whole(self, status: int, body: bytes, content_type: bytes, headers: Sequence[Header]) -> None:
        self._conclude(self._failure)
        self._grow(len(body))
        self.written.whole, self.written.complete = (status, body, content_type, headers), True
        self.audience.wake()

    # ---- its clients ----------------------------------------------------------------------------------------------

    async def opening(self, exchange: Exchange) -> None:
        """Until its request was sent to preprocess. Raises ApiError if it was refused, ClientGone."""
        written = self.written
        await self.audience.until(exchange, lambda: self.is_open or written.error is not None)
        if written.error is not None:
            raise written.error

    async def settled(self, exchange: Exchange) -> None:
        """Until it is where the front before has left it. Raises ClientGone."""
        done, written = self.ended is not None, self.written
        await self.audience.until(exchange, lambda: written.over if done else bool(self.pending) or written.over)

    def deserted(self) -> None:
        """One that is not kept ends with its clients."""
        if self._dropped and not self.written.over:
            self.exchange.connection.lose("the client closed the connection")

    def give_up(self, why: str) -> None:
        """It is not wanted any more: if it is being made, that ends."""
        if self.begun and not self.written.over and self.ended is None:
            self.exchange.connection.lose(why)
        else:
            self.keeper.drop(self)

    def stop(self) -> None:
        """The server shuts down."""
        self.audience.close()
        if self._task is not None:
            self._task.cancel()

    def discard(self) -> None:
        """It is not kept any more, and whoever waits for it to be made again waits no longer."""
        self._leave()
        if self._task is not None and not self.written.over:
            self.written.error = ApiError(503, "the answer is not kept any more", kind=UNAVAILABLE)
            self._task.cancel()
            self.audience.wake()

    @property
    def weight(self) -> int:
        """Its bytes."""
        return self.size + self.writer.size

    @property
    def releasable(self) -> bool:
        """It need not be kept to be read to its end: a client is there that never asked for more."""
        return not self.asked and self.is_open and self.audience.reads_on

    def release(self) -> None:
        """It goes on for the clients that are there, and is not kept any more."""
        self._leave()
        self.written.trim(self.audience.position)

    def _leave(self) -> None:
        self._dropped, self.note = True, _note_nothing
        self.audience.close()


def _note_nothing(_: list[bytes]) -> None:
    """Of an answer that is not kept."""


class KeptExchange(Exchange):
    """The request of an answer that is kept, for whoever makes that. `source`: the client's exchange, whose body is
    read; without it `content` is there already."""

    connection: DetachedLine
    answer: KeptAnswer

    def __init__(self, head: Head, settings: FrontSettings, source: Exchange | None = None) -> None:
        super().__init__(head, DetachedLine(settings), BodyMemory(settings))
        self._source = source
        self.arrival_ns = 0  # of the monotonic clock; 0: it arrives now
        self.kept_headers: tuple[Header, ...] = ()
        self.on_failure: Callable[[ApiError], None] | None = None  # ends what makes the answer

    def fail(self, error: ApiError) -> None:
        if self.on_failure is not None:
            self.on_failure(error)

    async def read_body(self) -> bytes:
        if self._source is not None:
            self.content, self._source = await self._source.read_body(), None
        content = self.content or b""
        self.body_bytes = len(content)
        return content

    # ---- the answer: see `Exchange` -------------------------------------------------------------------------------

    @property
    def keeps_up(self) -> bool:
        return True

    def head(self, status: int, content_type: bytes | None, headers: Sequence[Header] = ()) -> bytes:
        self.answer.written.head = status, content_type, [*self.common, *headers]
        return b""

    async def begin(self, head: bytes) -> None:
        self.started = True

    async def write(self, body: bytes) -> None:
        if body:
            self.answer.add(body)

    def write_soon(self, body: bytes, outbox: Outbox) -> None:
        self.answer.add(body, outbox)

    async def ping(self, body: bytes) -> None:
        self.answer.audience.ping(body)

    async def end(self, body: bytes = b"") -> None:
        self.complete = True
        self.answer.finish(body)

    async def respond(
        self, status: int, body: bytes, content_type: bytes = JSON, headers: Sequence[Header] = ()
    ) -> None:
        self.started = self.complete = True
        self.answer.finish_whole(status, body, content_type, [*self.common, *headers])


def failure_of(error: ApiError) -> Failure:
    return Failure(error.status, error.message, error.kind, error.parameter, error.code)


def error_of(failure: Failure) -> ApiError:
    return ApiError(
        failure.status, failure.message, kind=failure.kind, parameter=failure.parameter, code=failure.code
    )
