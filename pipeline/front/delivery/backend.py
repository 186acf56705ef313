"""The front's side of the pipeline: requests out, tokens in, each to the stream that waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence

import ipc
from pipeline.front.delivery.ring_client import Wires
from pipeline.front.delivery.stream import TokenStream
from pipeline.front.http.errors import INVALID, OVERLOADED, SERVER, UNAVAILABLE, ApiError, retry_later
from pipeline.front.http.outbox import Outbox
from pipeline.front.settings import FrontRings, FrontSettings
from pipeline.stats import Counters, FrontCounter, RingEnds, StatsReader
from pipeline.wire.delta import delta_head
from pipeline.wire.request import Accepted, Cancel, Refused, Started, Submit, unpack_reply

log = logging.getLogger("ringserve.front")

_MOST_BYTES = 4  # that a character or a token id takes in a record
_PARAMETERS = 1 << 20  # bytes that are more than any request's parameters take


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
        for streams in _by_prompt(live):
            self._resume(streams, wires)
        if live:
            self._counters.add(FrontCounter.RESUMED, len(live))
            log.warning("%d requests go on", len(live))

    def blame(self, requests: Sequence[int]) -> None:
        """Preprocess failed by itself over one of these. Whatever shares its prompt is to blame with it. To be called
        before `rewire`."""
        prompts = {id(stream.submit) for stream in self._streams.values() if _shares(stream, requests)}
        for stream in list(self._streams.values()):
            if stream.live and id(stream.submit) in prompts:
                self._strike(stream)

    def _strike(self, stream: TokenStream) -> None:
        stream.strikes += 1
        if stream.strikes > 1:
            log.error("request %016x made preprocess fail twice: it is refused", stream.request)
            stream.fail(ApiError(500, "the request made a process of the server fail twice", kind=SERVER))

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

    def submit(self, submits: Sequence[Submit]) -> list[TokenStream]:
        """All of them, or none; one stream for each choice. Where the first finds room in the ring, the others wait
        for theirs: they come faster than they can be read.

        Raises ApiError: 503 before the model was ready for the first time, 429 when there is no room, 413 for a
        giant."""
        settings = self._settings
        if not self._was_ready:
            raise retry_later(503, self.why_not_ready, UNAVAILABLE, settings.retry_after_s)
        if len(self._streams) + sum(len(submit.choices) for submit in submits) > settings.max_in_flight:
            raise retry_later(429, "too many requests wait; try again later", OVERLOADED, settings.retry_after_s)
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

    def _require_fits(self, submit: Submit) -> None:
        longest = self._longest_record
        if longest is None or _MOST_BYTES * len(submit.prompt) + _PARAMETERS <= longest:
            return  # it is packed when it is sent
        if len(submit.pack()) > longest:
            raise ApiError(413, "the prompt is too long for this server", kind=INVALID, parameter="prompt")

    def _send(self, streams: Sequence[TokenStream], *, wait: bool) -> None:
        """Streams of one prompt."""
        wires = self._wires
        if wires is None or self.closed.is_set():
            return  # they are sent with the rest
        if wires.resuming:
            self._resume(streams, wires)
            return
        with contextlib.suppress(ipc.PeerDied, ipc.RingClosed):  # then, too
            if wires.try_send(streams[0].submit.pack()):
                return
            if not wait:
                seconds = self._settings.retry_after_s
                raise retry_later(429, "too many requests arrive; try later", OVERLOADED, seconds)
            wires.send_later(functools.partial(_first_time, streams))

    def _resume(self, streams: Sequence[TokenStream], wires: Wires) -> None:
        """Streams of one prompt, as soon as there is room, and behind those that came before."""

        def late() -> bytes | None:
            live = [stream for stream in streams if stream.live]
            if not live:
                return None
            record = live[0].submit.resume(tuple(stream.resumption() for stream in live)).pack()
            if len(record) <= wires.max_record:
                return record
            if len(live) == 1:
                live[0].fail(ApiError(500, "the request is too long to be sent again", kind=SERVER))
            else:
                for stream in live:
                    self._resume([stream], wires)
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
            request, index, token, reason = delta_head(record)
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


def _first_time(streams: Sequence[TokenStream]) -> bytes | None:
    live = tuple(stream.choice for stream in streams if stream.live)
    return dataclasses.replace(streams[0].submit, choices=live).pack() if live else None


def _by_prompt(streams: Iterable[TokenStream]) -> Iterable[list[TokenStream]]:
    """Those that share one come together, where the first of them is."""
    groups = defaultdict[int, list[TokenStream]](list)
    for stream in streams:
        groups[id(stream.submit)].append(stream)
    return groups.values()


def _shares(stream: TokenStream, requests: Sequence[int]) -> bool:
    """Of these requests one is the stream's own, or the first of those that were sent with its prompt."""
    return stream.request in requests or stream.submit.choices[0].request in requests
