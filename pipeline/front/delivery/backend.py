"""The front's side of the pipeline: requests out, tokens in, each to its stream."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence

import ipc
from pipeline.front.delivery.encodings import Encodings
from pipeline.front.delivery.ring_client import RingClient
from pipeline.front.delivery.stream import TokenStream
from pipeline.front.http.errors import INVALID, OVERLOADED, SERVER, UNAVAILABLE, ApiError, retry_later
from pipeline.front.http.exchange import Exchange
from pipeline.front.http.responses import Outbox
from pipeline.front.settings import FrontRings, FrontSettings
from pipeline.stats import Counters, FrontCounter, RingEnds, StatsReader
from pipeline.wire.delta import SCORES, delta_head, scored_span
from pipeline.wire.request import (
    TOO_LONG,
    Accepted,
    Cancel,
    Encode,
    Encoded,
    Refused,
    Started,
    Submit,
    too_long,
    unpack_reply,
)

log = logging.getLogger("ringserve.front")

_MOST_BYTES = 4  # that a character or a token id takes in a record
_PARAMETERS = 1 << 20  # bytes that are more than any request's parameters take
_UNREADABLE = "a record from the pipeline could not be parsed"


class Backend:
    """Made inside a running loop. `submit` returns streams; `finish` must follow for each, however it ends.

    It has no rings until `attach`, and none between two generations. When they close, because a stage died, requests
    wait for the next ones; then each is sent again, in order of arrival, with the tokens received so far, and its
    stream continues after them. A request that arrives meanwhile waits with the others.
    """

    def __init__(
        self, settings: FrontSettings, counters: Counters, stats: StatsReader, outbox: Outbox, ends: RingEnds
    ) -> None:
        self._settings, self._counters, self._stats, self._ends = settings, counters, stats, ends
        self.outbox = outbox
        self._streams: dict[int, TokenStream] = {}  # in order of arrival
        self._next = secrets.randbits(31) << 32  # another front, or the next one, must not reuse a number
        self._client: RingClient | None = None
        self._reading: asyncio.Task[None] | None = None
        self._longest_record: int | None = None  # known once there have been rings
        self.closed = asyncio.Event()  # nothing more comes from these rings: `detach`
        self._encodings = Encodings()

    def attach(self, rings: FrontRings) -> None:
        """To the rings of a generation, whose descriptors this takes over. The last generation must be detached."""
        self._client = client = RingClient(rings, self._on_deltas, self._on_reply)
        self._longest_record = client.max_record
        self._ends.follow(client.rings)
        self.closed.clear()
        self._reading = asyncio.create_task(self._read(client))
        live = [stream for stream in self._streams.values() if stream.live]
        for streams in _by_prompt(live):
            self._resume(streams, client)
        if live:
            self._counters.add(FrontCounter.RESUMED, len(live))
            log.warning("resuming %d requests", len(live))
        self._encodings.attach(client)

    def blame(self, requests: Sequence[int]) -> None:
        """One of these made preprocess fail by itself. Requests that share its prompt are to blame with it. To be
        called before `attach`."""
        self._encodings.blame(requests)
        prompts = {id(stream.submit) for stream in self._streams.values() if _shares(stream, requests)}
        for stream in list(self._streams.values()):
            if stream.live and id(stream.submit) in prompts:
                self._strike(stream)

    def _strike(self, stream: TokenStream) -> None:
        stream.strikes += 1
        if stream.strikes > 1:
            log.error("request %016x made preprocess fail twice: it is refused", stream.request)
            stream.fail(ApiError(500, "the request made a process of the server fail twice", kind=SERVER))

    async def detach(self) -> None:
        """Read what the rings still hold, and detach from them. Twice is harmless."""
        client, self._client = self._client, None
        if client is None or self._reading is None:
            return
        self._encodings.detach()
        self._ends.follow({})
        try:
            await client.close()
        except Exception:
            log.exception(_UNREADABLE)
            self._fail_all(_UNREADABLE)
        await self._reading

    async def close(self) -> None:
        """Fail requests in flight, and detach from the rings."""
        self._fail_all("the server is shutting down")
        await self.detach()

    @property
    def ready(self) -> bool:
        return self._client is not None and not self.closed.is_set() and self._stats.ready

    @property
    def why_not_ready(self) -> str:
        return "not ready: " + ("a stage is being restarted" if self._was_ready else "the model is being loaded")

    @property
    def _was_ready(self) -> bool:
        """This front or one before it has served, so the pipeline will be ready again."""
        return self._longest_record is not None or self._stats.has_served

    # ---- requests -------------------------------------------------------------------------------------------

    def new_id(self) -> int:
        self._next += 1
        return self._next

    def announce(self) -> None:
        """A request is about to come: where there is no other, preprocess sleeps, and had better wake up."""
        if self._client is not None and not self._streams:
            self._client.wake()

    def submit(self, submits: Sequence[Submit]) -> list[TokenStream]:
        """All of them, or none; one stream for each choice. If there is room in the ring for the first one, the
        others may wait for room: a long list can be written faster than it is read.

        Raises ApiError: 503 before the model was ready for the first time, 429 when there is no room, 413 for a
        prompt that is larger than any record."""
        settings = self._settings
        self._require_was_ready()
        if len(self._streams) + sum(len(submit.choices) for submit in submits) > settings.max_in_flight:
            raise retry_later(429, "the queue is full; try again later", OVERLOADED)
        for submit in submits:
            self._require_fits(submit)
        made: list[TokenStream] = []
        for submit in submits:
            streams = [TokenStream(submit, choice, settings.stream_buffer_tokens) for choice in submit.choices]
            self._send(streams, wait=bool(made))
            self._streams |= {stream.request: stream for stream in streams}
            made += streams
        self._counters.set(FrontCounter.IN_FLIGHT, len(self._streams))
        return made

    async def encode(self, asked: Encode, exchange: Exchange) -> tuple[int, bytes]:
        """How many token ids the text has, and the ids unless they are too many.

        Raises ApiError: 503 before the model was ready for the first time, 429 when too many texts wait, 413 for one
        that is larger than any record; what preprocess has refused. ClientGone."""
        self._require_was_ready()
        self._require_fits(asked)
        return await self._encodings.encode(asked, exchange)

    def _require_was_ready(self) -> None:
        if not self._was_ready:
            raise retry_later(503, self.why_not_ready, UNAVAILABLE)

    def _require_fits(self, submit: Submit | Encode) -> None:
        longest = self._longest_record
        if longest is None or _MOST_BYTES * submit.size + _PARAMETERS <= longest:
            return  # certainly fits: it is packed only when it is sent
        if len(submit.pack()) > longest:
            why = too_long(self._settings.max_length, "your prompt is larger than this server can pass on")
            raise ApiError(413, why, kind=INVALID, parameter="prompt", code=TOO_LONG)

    def _send(self, streams: Sequence[TokenStream], *, wait: bool) -> None:
        """Streams of one prompt."""
        client = self._client
        if client is None or self.closed.is_set():
            return  # `attach` sends them with the others
        if client.resuming:
            self._resume(streams, client)
            return
        with contextlib.suppress(ipc.PeerDied, ipc.RingClosed):  # then, too
            if client.try_send(streams[0].submit.pack()):
                return
            if not wait:
                raise retry_later(429, "too many requests at once; try again later", OVERLOADED)
            client.send_later(functools.partial(_first_time, streams))

    def _resume(self, streams: Sequence[TokenStream], client: RingClient) -> None:
        """Streams of one prompt, as soon as there is room, after those that arrived before."""

        def late() -> bytes | None:
            live = [stream for stream in streams if stream.live]
            if not live:
                return None
            record = live[0].submit.with_choices([stream.resumption() for stream in live]).pack()
            if len(record) <= client.max_record:
                return record
            if len(live) == 1:
                live[0].fail(ApiError(500, "the request is too large to be resumed after a restart", kind=SERVER))
            else:
                for stream in live:
                    self._resume([stream], client)
            return None

        client.send_later(late, resumes=True)

    def finish(self, stream: TokenStream, *, cancel: bool) -> None:
        """Forget a request. With `cancel` the pipeline stops it; tokens that still arrive are dropped."""
        stream.stop()
        self._forget(stream, cancel=cancel)

    def _forget(self, stream: TokenStream, *, cancel: bool) -> None:
        self._streams.pop(stream.request, None)
        self._counters.set(FrontCounter.IN_FLIGHT, len(self._streams))
        if cancel:
            self._cancel(stream.request)

    def _cancel(self, request: int) -> None:
        """A cancellation may have to wait for room, but is never lost."""
        client, record = self._client, Cancel(request).pack()
        if client is not None:
            with contextlib.suppress(ipc.PeerDied, ipc.RingClosed):  # then the request is gone, too
                if not client.try_send(record):
                    client.send_later(lambda: record)

    # ---- answers --------------------------------------------------------------------------------------------

    async def _read(self, client: RingClient) -> None:
        """Until the rings close, or a record can't be parsed."""
        try:
            await client.run()
        except Exception:
            log.exception(_UNREADABLE)
            self._fail_all(_UNREADABLE)
        self.closed.set()
        if self._streams:
            log.warning("a stage ended: %d requests wait until the pipeline is complete again", len(self._streams))

    def _fail_all(self, why: str) -> None:
        error = retry_later(503, f"the request was lost: {why}", UNAVAILABLE)
        for stream in list(self._streams.values()):
            stream.fail(error)
        self._encodings.fail_all(error)

    def _on_deltas(self, records: Sequence[bytes]) -> None:
        """Pass each stream all of its records at once: usually one token, under load several."""
        now, streams, came = time.monotonic_ns(), self._streams, defaultdict[TokenStream, list[bytes]](list)
        for record in records:
            request, attempt, index, token, reason = delta_head(record)
            stream = streams.get(request)
            if stream is None or attempt != stream.attempt:
                self._counters.add(FrontCounter.DROPPED_DELTAS)
            elif index == len(stream.tokens) + 1 or token < 0:  # a failure is not a token, and has no index
                stream.note(token, reason)
                came[stream].append(record)
            elif reason == SCORES:
                self._on_scores(stream, record)
            else:
                self._break(stream, index)
        for stream, own in came.items():
            stream.push(own, now)
        self.outbox.flush(now)

    def _on_scores(self, stream: TokenStream, record: bytes) -> None:
        position, count = scored_span(record)
        if position == stream.scored:
            stream.note_scores(record, count)
        else:
            self._break(stream, position)

    def _break(self, stream: TokenStream, index: int) -> None:
        """A token is missing or came twice. This must not happen; the client gets an error, not a wrong text."""
        has = len(stream.tokens), stream.scored
        log.error("request %016x: received token %d after token %d, scores %d", stream.request, index, *has)
        stream.fail(ApiError(500, "a part of the answer was lost in the server", kind=SERVER))
        self._forget(stream, cancel=True)

    def _on_reply(self, record: bytes) -> None:
        reply = unpack_reply(record)
        if isinstance(reply, Encoded):
            self._encodings.on_encoded(reply)
            return
        stream = self._streams.get(reply.request)
        if stream is None:
            if isinstance(reply, Refused):
                self._encodings.on_refused(reply.request, reply.attempt, self._refusal(reply))
            return
        if reply.attempt == stream.attempt:
            self._reply(stream, reply)
        else:
            self._counters.add(FrontCounter.DROPPED_DELTAS)

    def _reply(self, stream: TokenStream, reply: Accepted | Refused | Started) -> None:
        if isinstance(reply, Accepted):
            stream.accept(reply.prompt_tokens, reply.first_id)
        elif isinstance(reply, Refused):
            stream.fail(self._refusal(reply))
        else:
            stream.cached_tokens = reply.cached_tokens
            if stream.waited_ns is None:
                stream.waited_ns = reply.waited_ns

    def _refusal(self, reply: Refused) -> ApiError:
        if reply.status in (429, 503):
            kind = OVERLOADED if reply.status == 429 else UNAVAILABLE
            return retry_later(reply.status, reply.message, kind)
        kind = INVALID if reply.status < 500 else SERVER
        return ApiError(reply.status, reply.message, kind=kind, parameter=reply.parameter, code=reply.code)


def _first_time(streams: Sequence[TokenStream]) -> bytes | None:
    live = [stream.choice for stream in streams if stream.live]
    return streams[0].submit.with_choices(live).pack() if live else None


def _by_prompt(streams: Iterable[TokenStream]) -> Iterable[list[TokenStream]]:
    """Groups that share a prompt, in the order of their first streams."""
    groups = defaultdict[int, list[TokenStream]](list)
    for stream in streams:
        groups[id(stream.submit)].append(stream)
    return groups.values()


def _shares(stream: TokenStream, requests: Sequence[int]) -> bool:
    """One of these requests is the stream's own, or the first of those that were sent with its prompt."""
    return stream.request in requests or stream.submit.request in requests
