"""The front's side of the pipeline: requests out, tokens in, each to the stream that waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
import struct
import time
from collections import defaultdict
from collections.abc import Sequence

import ipc
from pipeline.front.errors import INVALID, OVERLOADED, SERVER, UNAVAILABLE, ApiError, retry_later
from pipeline.front.outbox import Outbox
from pipeline.front.settings import FrontRings, FrontSettings
from pipeline.front.stream import TokenStream
from pipeline.front.wires import Wires
from pipeline.messages import Accepted, Cancel, Refused, Started, Submit, unpack_reply
from pipeline.stats import Counters, FrontCounter, RingEnds, StatsReader

log = logging.getLogger("ringserve.front")

_DELTA = struct.Struct("<QI8xi4xB")  # request, index, token, reason of a delta


class Backend:
    """Made inside a running loop. `submit` gives a stream; `finish` must follow, whatever became of it.

    It has no rings until `rewire`, and none between two generations. When they close, because a stage died, requests
    wait for others; then each is sent again, in order of arrival, together with the tokens that have come so far, and
    its stream goes on behind them. A request that arrives meanwhile waits with the rest.
    """

    def __init__(
        self, settings: FrontSettings, counters: Counters, stats: StatsReader, outbox: Outbox, ends: RingEnds
    ) -> None:
        self._settings, self._counters, self._stats, self._ends = settings, counters, stats, ends
        self.outbox = outbox
        self._streams: dict[int, TokenStream] = {}  # in order of arrival
        self._next = secrets.randbits(31) << 32  # another front, or the next one, must not reuse a number
        self._wires: Wires | None = None
        self._attending: asyncio.Task[None] | None = None
        self._longest_record: int | None = None  # known as soon as there have been rings
        self.closed = asyncio.Event()  # nothing more comes from these rings: `leave` them

    def rewire(self, rings: FrontRings) -> None:
        """Attach to the rings of a generation, whose descriptors this takes over. Those of the last one were left."""
        self._wires = wires = Wires(rings, self._on_deltas, self._on_reply)
        self._longest_record = wires.max_record
        self._ends.follow(wires.rings)
        self.closed.clear()
        self._attending = asyncio.create_task(self._attend(wires))
        live = [stream for stream in self._streams.values() if stream.live]
        for stream in live:
            stream.unanswered = False
            self._resume(stream, wires)
        if live:
            self._counters.add(FrontCounter.RESUMED, len(live))
            log.warning("%d requests go on", len(live))

    def blame_first(self) -> None:
        """Preprocess failed by itself. It answers requests one by one in the order in which they were sent: the first
        that has no answer is the one over which it failed. To be called before `rewire`."""
        first = next((stream for stream in self._streams.values() if stream.live and stream.unanswered), None)
        if first is None:
            return
        first.strikes += 1
        if first.strikes > 1:
            log.error("request %016x made preprocess fail twice: it is refused", first.request)
            first.fail(ApiError(500, "the request made a process of the server fail twice", kind=SERVER))

    async def leave(self) -> None:
        """Take what the rings still hold, and let go of them. Twice is harmless."""
        wires, self._wires = self._wires, None
        if wires is None or self._attending is None:
            return
        self._ends.follow({})
        try:
            await wires.close()
        except Exception:
            log.exception("an answer can't be read")
            self._fail_all("an answer could not be read")
        await self._attending

    async def close(self) -> None:
        """Fail what is in flight, and leave the rings."""
        self._fail_all("the server is shutting down")
        await self.leave()

    @property
    def ready(self) -> bool:
        return self._wires is not None and not self.closed.is_set() and self._stats.ready

    @property
    def why_not_ready(self) -> str:
        return "not ready: " + ("a stage is being restarted" if self._was_ready else "the model is being loaded")

    @property
    def _was_ready(self) -> bool:
        """Some front has been at work, this one or one before it: others will be, too."""
        return self._longest_record is not None or self._stats.generation > 0

    # ---- requests -------------------------------------------------------------------------------------------

    def new_id(self) -> int:
        self._next += 1
        return self._next

    def submit(self, message: Submit) -> TokenStream:
        """Raises ApiError: 503 before the model was ready for the first time, 429 when there is no room, 413 for a
        giant."""
        return self.submit_all([message])[0]

    def submit_all(self, messages: Sequence[Submit]) -> list[TokenStream]:
        """All of them, or none. Where the first finds room in the ring, the others wait for theirs: they come faster
        than they can be read. Raises as `submit`."""
        settings = self._settings
        if not self._was_ready:
            raise retry_later(503, self.why_not_ready, UNAVAILABLE, settings.retry_after_s)
        if len(self._streams) + len(messages) > settings.max_in_flight:
            raise retry_later(429, "too many requests wait; try again later", OVERLOADED, settings.retry_after_s)
        streams = [TokenStream(message.with_seed(), settings.stream_buffer_tokens) for message in messages]
        records = [self._pack(stream) for stream in streams]
        for stream, record in zip(streams, records, strict=True):
            self._send(stream, record, wait=stream is not streams[0])
            self._streams[stream.request] = stream
        self._counters.set(FrontCounter.IN_FLIGHT, len(self._streams))
        return streams

    def _pack(self, stream: TokenStream) -> bytes:
        record = stream.message.pack()
        if self._longest_record is not None and len(record) > self._longest_record:
            raise ApiError(413, "the prompt is too long for this server", kind=INVALID, parameter="prompt")
        return record

    def _send(self, stream: TokenStream, record: bytes, *, wait: bool) -> None:
        wires = self._wires
        if wires is None or self.closed.is_set():
            return  # it is sent with the rest
        if wires.resuming:
            self._resume(stream, wires)
            return
        with contextlib.suppress(ipc.PeerDied, ipc.RingClosed):  # then, too
            if wires.try_send(record):
                stream.unanswered = True
                return
            if not wait:
                seconds = self._settings.retry_after_s
                raise retry_later(429, "too many requests arrive; try later", OVERLOADED, seconds)
            wires.send_later(functools.partial(_first_time, stream))

    def _resume(self, stream: TokenStream, wires: Wires) -> None:
        """As soon as there is room, and behind those that came before."""

        def late() -> bytes | None:
            record = stream.resumption()
            if record is None or len(record) <= wires.max_record:
                stream.unanswered = record is not None
                return record
            stream.fail(ApiError(500, "the request is too long to be sent again", kind=SERVER))
            return None

        wires.send_later(late, resumes=True)

    def finish(self, stream: TokenStream, *, cancel: bool) -> None:
        """Forget a request. With `cancel` the pipeline is told to stop it; tokens under way are dropped."""
        stream.stop()
        self._forget(stream, cancel=cancel)

    def _forget(self, stream: TokenStream, *, cancel: bool) -> None:
        self._streams.pop(stream.request, None)
        self._counters.set(FrontCounter.IN_FLIGHT, len(self._streams))
        if cancel:
            self._cancel(stream.request)

    def _cancel(self, request: int) -> None:
        """A cancellation may have to wait for room, but is never lost."""
        wires, record = self._wires, Cancel(request).pack()
        if wires is not None:
            with contextlib.suppress(ipc.PeerDied, ipc.RingClosed):  # then the request is gone, too
                if not wires.try_send(record):
                    wires.send_later(lambda: record)

    # ---- answers --------------------------------------------------------------------------------------------

    async def _attend(self, wires: Wires) -> None:
        """Until the rings close, or bring what can't be read."""
        try:
            await wires.run()
        except Exception:
            log.exception("an answer can't be read")
            self._fail_all("an answer could not be read")
        self.closed.set()
        if self._streams:
            log.warning("the rings have closed; %d requests wait for others", len(self._streams))

    def _fail_all(self, why: str) -> None:
        error = retry_later(503, f"the request was lost: {why}", UNAVAILABLE, self._settings.retry_after_s)
        for stream in list(self._streams.values()):
            stream.fail(error)

    def _on_deltas(self, records: Sequence[bytes]) -> None:
        """To each stream what is its own, at once: usually a token of each, under load several."""
        now, streams, came = time.monotonic_ns(), self._streams, defaultdict[TokenStream, list[bytes]](list)
        for record in records:
            request, index, token, reason = _DELTA.unpack_from(record)
            stream = streams.get(request)
            if stream is None:
                self._counters.add(FrontCounter.DROPPED_DELTAS)
            elif index == len(stream.tokens) + 1 or token < 0:  # a failure is not a token, and has no place
                stream.note(token, reason)
                came[stream].append(record)
            else:
                self._break(stream, index)
        for stream, own in came.items():
            stream.push(own, now)
        self.outbox.flush(now)

    def _break(self, stream: TokenStream, index: int) -> None:
        """A token is missing or comes twice. This must not happen; the client is told rather than misled."""
        log.error("request %016x: token %d came after %d", stream.request, index, len(stream.tokens))
        stream.fail(ApiError(500, "a part of the answer was lost", kind=SERVER))
        self._forget(stream, cancel=True)

    def _on_reply(self, record: bytes) -> None:
        reply = unpack_reply(record)
        stream = self._streams.get(reply.request)
        if stream is not None:
            self._reply(stream, reply)

    def _reply(self, stream: TokenStream, reply: Accepted | Refused | Started) -> None:
        stream.unanswered = False
        if isinstance(reply, Accepted):
            stream.accept()
        elif isinstance(reply, Refused):
            stream.fail(self._refusal(reply))
        else:
            stream.cached_tokens = reply.cached_tokens
            if stream.waited_ns is None:
                stream.waited_ns = reply.waited_ns

    def _refusal(self, reply: Refused) -> ApiError:
        if reply.status in (429, 503):
            kind = OVERLOADED if reply.status == 429 else UNAVAILABLE
            return retry_later(reply.status, reply.message, kind, self._settings.retry_after_s)
        kind = INVALID if reply.status < 500 else SERVER
        return ApiError(reply.status, reply.message, kind=kind, parameter=reply.parameter, code=reply.code)


def _first_time(stream: TokenStream) -> bytes | None:
    stream.unanswered = stream.live
    return stream.message.pack() if stream.live else None
