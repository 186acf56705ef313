"""The front's side of the pipeline: requests out, tokens in, each to the stream that waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import struct
import time
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from typing import Any

import ipc
from pipeline.front.errors import INVALID, OVERLOADED, UNAVAILABLE, ApiError, retry_later
from pipeline.front.outbox import Outbox
from pipeline.front.settings import FrontRings, FrontSettings
from pipeline.front.stream import TokenStream
from pipeline.messages import Accepted, Cancel, Refused, Started, Submit, unpack_reply
from pipeline.stats import Counters, FrontCounter, StatsReader

log = logging.getLogger("ringserve.front")

_REQUEST = struct.Struct("<Q")  # every delta begins with its request
_BATCH = 1024  # records that are dispatched together; under load each write then holds several
_RETRY_S = 0.1  # how often a dead stage is looked after; it may be replaced


class Backend:
    """Made inside a running loop. `submit` gives a stream; `finish` must follow, whatever became of it.

    A stage that dies or goes away fails every request in flight, and new ones are refused until it is back.
    """

    def __init__(
        self, rings: FrontRings, settings: FrontSettings, counters: Counters, stats: StatsReader, outbox: Outbox
    ) -> None:
        self._settings, self._counters, self._stats = settings, counters, stats
        self._rings = [ipc.ByteRing.from_handle(handle) for handle in (rings.requests, rings.replies, rings.deltas)]
        requests, replies, deltas = self._rings
        self._requests = ipc.AsyncProducer(requests, label="front")
        self._replies = ipc.AsyncConsumer(replies, label="front")
        self._deltas = ipc.AsyncConsumer(deltas, label="front")
        self.outbox = outbox
        self._streams: dict[int, TokenStream] = {}
        self._next = secrets.randbits(31) << 32  # another front, or the next one, must not reuse a number
        self._cancels: deque[bytes] = deque()
        self._flushing: asyncio.Task[None] | None = None
        self._down: dict[str, str] = {}  # ring → why it is of no use at present
        self._tasks: list[asyncio.Task[None]] = []
        self.closed = asyncio.Event()  # the other side closed its ring: there is nobody left to serve with

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._attend(self._replies, self._read_replies)),
            asyncio.create_task(self._attend(self._deltas, self._read_deltas)),
        ]

    async def close(self) -> None:
        """Fail what is in flight, and leave the rings."""
        self._fail_all("the server is shutting down")
        tasks = [*self._tasks, *([self._flushing] if self._flushing else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for end in (self._requests, self._replies, self._deltas):
            end.close()
        for ring in self._rings:
            ring.close()

    @property
    def rings(self) -> dict[str, ipc.ByteRing]:
        return {ring.name: ring for ring in self._rings}

    @property
    def ready(self) -> bool:
        return not self._down and self._stats.ready

    @property
    def why_not_ready(self) -> str:
        return "not ready: " + ("; ".join(self._down.values()) or "the model is being loaded")

    # ---- requests -------------------------------------------------------------------------------------------

    def new_id(self) -> int:
        self._next += 1
        return self._next

    def submit(self, message: Submit) -> TokenStream:
        """Raises ApiError: 503 while the model is not ready, 429 when there is no room, 413 for a giant."""
        settings = self._settings
        if not self.ready:
            raise retry_later(503, self.why_not_ready, UNAVAILABLE, settings.retry_after_s)
        if len(self._streams) >= settings.max_in_flight:
            raise retry_later(429, "too many requests wait; try again later", OVERLOADED, settings.retry_after_s)
        self._send(message.pack())
        stream = self._streams[message.request] = TokenStream(message.request, settings.stream_buffer_tokens)
        self._counters.set(FrontCounter.IN_FLIGHT, len(self._streams))
        return stream

    def _send(self, record: bytes) -> None:
        if len(record) > self._requests.end.max_record:
            raise ApiError(413, "the prompt is too long for this server", kind=INVALID, parameter="prompt")
        try:
            written = self._try_write(record)
        except (ipc.PeerDied, ipc.RingClosed) as error:
            raise retry_later(503, "the server is restarting", UNAVAILABLE, self._settings.retry_after_s) from error
        if not written:
            raise retry_later(429, "too many requests arrive; try later", OVERLOADED, self._settings.retry_after_s)

    def _try_write(self, record: bytes) -> bool:
        """False when there is no room now, or cancellations wait for it."""
        slot = None if self._cancels else self._requests.try_reserve(len(record))
        if slot is None:
            return False
        slot.write(record)
        slot.publish()
        return True

    def finish(self, stream: TokenStream, *, cancel: bool) -> None:
        """Forget a request. With `cancel` the pipeline is told to stop it; tokens under way are dropped."""
        self._streams.pop(stream.request, None)
        self._counters.set(FrontCounter.IN_FLIGHT, len(self._streams))
        if cancel and not self._down:
            self._cancel(Cancel(stream.request).pack())

    def _cancel(self, record: bytes) -> None:
        """A cancellation may have to wait for room, but is never lost."""
        with contextlib.suppress(ipc.PeerDied, ipc.RingClosed):  # then the request is gone, too
            if not self._try_write(record):
                self._cancels.append(record)
                if self._flushing is None or self._flushing.done():
                    self._flushing = asyncio.create_task(self._flush_cancels())

    async def _flush_cancels(self) -> None:
        try:
            while self._cancels:
                slot = await self._requests.reserve(len(self._cancels[0]))
                slot.write(self._cancels.popleft())
                slot.publish()
        except (ipc.PeerDied, ipc.RingClosed):
            self._cancels.clear()

    # ---- answers --------------------------------------------------------------------------------------------

    async def _attend(self, end: ipc.AsyncConsumer, read: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Read a ring for ever. A stage that died may be replaced by another at the same ring."""
        name = end.end.name
        while True:
            try:
                end.end.check_peer()
                self._down.pop(name, None)
                await read()
            except ipc.PeerDied as error:
                self._lose(name, f"{error.label or 'a stage'} died")
                await asyncio.sleep(_RETRY_S)
            except ipc.RingClosed:
                return self._give_up(name, "the server is shutting down")
            except Exception:
                log.exception("ring %s can't be read any more", name)
                return self._give_up(name, "an answer could not be read")

    def _give_up(self, name: str, why: str) -> None:
        self._lose(name, why)
        self.closed.set()

    def _lose(self, name: str, why: str) -> None:
        if name not in self._down:
            level = logging.ERROR if self._streams else logging.INFO
            log.log(level, "ring %s: %s; %d requests fail", name, why, len(self._streams))
        self._down[name] = why
        self._fail_all(why)

    def _fail_all(self, why: str) -> None:
        error = retry_later(503, f"the request was lost: {why}", UNAVAILABLE, self._settings.retry_after_s)
        for stream in list(self._streams.values()):
            stream.fail(error)

    async def _read_deltas(self) -> None:
        deltas, end = self._deltas, self._deltas.end
        while True:
            with await deltas.read() as slot:
                records = [bytes(slot)]
            if end.occupancy:
                records += end.read_many(_BATCH, 0)
            self._dispatch(records)
            await asyncio.sleep(0)  # what was written goes out, and others get a turn

    def _dispatch(self, records: list[bytes]) -> None:
        """To each stream what is its own, at once: usually a token of each, under load several."""
        now, by_request = time.monotonic_ns(), defaultdict[int, list[bytes]](list)
        for record in records:
            by_request[_REQUEST.unpack_from(record)[0]].append(record)
        for request, own in by_request.items():
            stream = self._streams.get(request)
            if stream is None:
                self._counters.add(FrontCounter.DROPPED_DELTAS, len(own))
            else:
                stream.push(own, now)
        self.outbox.flush(now)

    async def _read_replies(self) -> None:
        while True:
            with await self._replies.read() as slot:
                reply = unpack_reply(bytes(slot))
            self._reply(reply)

    def _reply(self, reply: Accepted | Refused | Started) -> None:
        stream = self._streams.get(reply.request)
        if stream is None:
            return
        if isinstance(reply, Accepted):
            stream.accept()
        elif isinstance(reply, Started):
            stream.waited_ns = reply.waited_ns
        else:
            stream.fail(self._refusal(reply))

    def _refusal(self, reply: Refused) -> ApiError:
        if reply.status in (429, 503):
            kind = OVERLOADED if reply.status == 429 else UNAVAILABLE
            return retry_later(reply.status, reply.message, kind, self._settings.retry_after_s)
        return ApiError(reply.status, reply.message, parameter=reply.parameter, code=reply.code)
