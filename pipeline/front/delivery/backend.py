"""The front's side of the pipeline: requests out, tokens in, each to its stream."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Sequence

import ipc
from pipeline.front.delivery.encodings import Encodings
from pipeline.front.delivery.guests import Guests, NoGuests
from pipeline.front.delivery.lane import NOWHERE, Connect, Lane, LaneClient, Lanes
from pipeline.front.delivery.recovery import Recovery, shares
from pipeline.front.delivery.ring_client import RingClient
from pipeline.front.delivery.routing.router import Router
from pipeline.front.delivery.stream import TokenStream
from pipeline.front.delivery.suspects import conviction
from pipeline.front.http.errors import INVALID, OVERLOADED, SERVER, UNAVAILABLE, ApiError, retry_later
from pipeline.front.http.exchange import Exchange
from pipeline.front.http.responses import Outbox
from pipeline.front.settings import FrontRings, FrontSettings
from pipeline.runtime.generations import Verdict
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


NUMBER_BITS = 32
"""Of a request: those above are its front's."""


class Backend:
    """Made inside a running loop. `submit` returns streams; `finish` must follow for each, however it ends.

    It has no rings of a replica until `attach`, and none between two generations. When they close, because a stage
    died, requests wait for the next ones, or go on elsewhere (see `recovery`): each is sent again, in order of
    arrival, with the tokens received so far, and its stream continues after them. A request that arrives while no
    replica is there waits with the others.
    """

    def __init__(
        self,
        settings: FrontSettings,
        counters: Counters,
        stats: StatsReader,
        outbox: Outbox,
        ends: RingEnds,
        router: Router,
    ) -> None:
        self._settings, self._counters, self._stats, self._ends = settings, counters, stats, ends
        self.outbox = outbox
        self._streams: dict[int, TokenStream] = {}  # in order of arrival
        self.number = secrets.randbits(31)  # another front, or the next one, must not reuse a request's
        self._next = self.number << NUMBER_BITS
        self.guests: Guests = NoGuests()
        self.lanes = Lanes(settings.replicas, router)
        self._recovery = Recovery(self.lanes, self._streams, counters)
        self._longest_record: int | None = None  # known once there have been rings
        self._encodings = Encodings(self.lanes)

    def attach(
        self, rings: FrontRings, replica: int = 0, generation: int = 0, weights: str = "", *, on_trial: bool = False
    ) -> None:
        """To the rings of a generation, whose descriptors this takes over. The last generation must be detached.
        `weights`: the id of those that it is computed with. `on_trial`: until `on_proven` nothing is sent there but
        what `submit_to` does."""
        self.attach_client(functools.partial(RingClient, rings), replica, generation, weights, on_trial=on_trial)

    def attach_client(
        self, connect: Connect, replica: int, generation: int, weights: str = "", *, on_trial: bool = False
    ) -> None:
        """To whatever is there in place of rings."""
        lane = self.lanes[replica]
        client = connect(lambda records: self._sweep(lane, records), self._on_reply)
        self._longest_record = client.max_record
        lane.attach(client, generation, weights, on_trial=on_trial)
        self._follow_rings()
        lane.reading = asyncio.create_task(self._read(lane, client))
        if not on_trial:
            self._open(lane)

    def on_proven(self, replica: int, generation: int) -> None:
        """This generation may have requests, if it is still there."""
        lane = self.lanes[replica]
        if lane.on_trial and lane.generation == generation:
            lane.on_trial = False
            if lane.up:
                self._open(lane)

    def _open(self, lane: Lane) -> None:
        """For requests."""
        self.lanes.up_again(lane)
        self._recovery.on_attached(lane)
        self._encodings.on_attached(lane)
        self.guests.on_attached(lane)

    def _follow_rings(self) -> None:
        lanes = [lane for lane in self.lanes if lane.client is not None and lane.client.rings]
        self.lanes.ringed = lanes
        self._ends.follow({name: ring for lane in lanes if lane.client for name, ring in lane.client.rings.items()})

    def on_verdict(self, verdict: Verdict) -> None:
        """Why a replica's rings have ended; it may come before this front has read them to their end, or begun."""
        lane = self.lanes[verdict.replica]
        self.guests.on_verdict(verdict)
        if self.lanes.several and verdict.generation >= lane.generation:
            lane.verdict = verdict
            self._heed(lane)

    def _heed(self, lane: Lane) -> None:
        verdict = lane.verdict
        if verdict is not None and lane.detached and verdict.generation == lane.generation:
            lane.verdict = None
            self._recovery.on_verdict(lane, verdict)
            self._encodings.on_verdict(verdict)

    def on_away(self, replica: int) -> None:
        """It does not come back soon."""
        self._recovery.on_away(replica)
        self._encodings.on_away(replica)
        self.guests.on_away(replica)

    def blame(self, requests: Sequence[int]) -> None:
        """One of these made preprocess fail by itself. Requests that share its prompt are to blame with it. To be
        called before `attach`, of the only replica: with several there is a verdict."""
        self._encodings.blame(requests)
        prompts = {id(stream.submit) for stream in self._streams.values() if shares(stream, requests)}
        for stream in list(self._streams.values()):
            if stream.live and id(stream.submit) in prompts:
                self._strike(stream)

    def _strike(self, stream: TokenStream) -> None:
        stream.strikes += 1
        if stream.strikes > 1:
            log.error("request %016x made preprocess fail twice: it is refused", stream.request)
            stream.fail(conviction())

    async def detach(self, replica: int = 0) -> None:
        """Read what the rings still hold, and detach from them. Twice is harmless."""
        lane = self.lanes[replica]
        client, lane.client = lane.client, None
        if client is None or lane.reading is None:
            return
        self.lanes.down(lane)
        self._follow_rings()
        try:
            await client.close()
        except Exception:
            log.exception(_UNREADABLE)
            self._fail_all(_UNREADABLE, lane)
        await lane.reading
        lane.detached = True
        self.guests.on_detached(lane)
        self._heed(lane)

    async def close(self) -> None:
        """Fail requests in flight, and detach from the rings."""
        self._fail_all("the server is shutting down")
        for lane in self.lanes:
            await self.detach(lane.replica)

    def is_deterministic(self, replica: int) -> bool:
        """Requests can be, at this replica of this machine, whose stages have told what they found out."""
        return not self._settings.not_deterministic and self._stats.is_deterministic(replica)

    def requests_at_replicas(self) -> Counter[int]:
        """How many there are at each."""
        return Counter(stream.home for stream in self._streams.values())

    @property
    def drain_timeout_s(self) -> float:
        return self._settings.drain_timeout_s

    @property
    def ready(self) -> bool:
        return self.lanes.any_up and self._stats.ready

    @property
    def why_not_ready(self) -> str:
        if self._settings.is_router:
            return "not ready: no node can be reached whose model is loaded"
        return "not ready: " + ("a stage is being restarted" if self._was_ready else "the model is being loaded")

    @property
    def _was_ready(self) -> bool:
        """This front or one before it has served, so the pipeline will be ready again."""
        return self._longest_record is not None or self._stats.has_served

    # ---- requests -------------------------------------------------------------------------------------------

    def new_id(self) -> int:
        self._next += 1
        return self._next

    def announce(self, lane: Lane | None = None) -> None:
        """A request is about to come, to this lane if it is known: where there is no other, preprocess sleeps, and
        had better wake up."""
        lane = lane or self.lanes.only
        if lane is not None and lane.client is not None and not (self._streams or self.guests.live):
            lane.client.wake()

    def submit(self, submits: Sequence[Submit], *, again: bool = False) -> list[TokenStream]:
        """All of them, or none; one stream for each choice. If there is room in the ring for the first one, the
        others may wait for room: a long list can be written faster than it is read. `again`: a front before has let
        them in, so that all may wait.

        Raises ApiError: 503 before the model was ready for the first time, 429 when there is no room, 413 for a
        prompt that is larger than any record."""
        if not again:
            self._require_room(submits)
        made: list[TokenStream] = []
        for submit in submits:
            limit = self._settings.stream_buffer_tokens
            streams = [TokenStream(submit, choice, limit) for choice in submit.choices]
            self._send(streams, wait=again or bool(made))
            self._streams |= {stream.request: stream for stream in streams}
            made += streams
        self._counters.set(FrontCounter.IN_FLIGHT, len(self._streams))
        return made

    def submit_to(self, replica: int, submit: Submit) -> TokenStream:
        """One text, of the server's own, at this replica. If that is down, it may go on elsewhere."""
        stream = TokenStream(submit, submit.choices[0], self._settings.stream_buffer_tokens)
        self._streams[stream.request], lane = stream, self.lanes[replica]
        self._counters.set(FrontCounter.IN_FLIGHT, len(self._streams))
        stream.home = replica
        stream.computed_with(lane.weights)
        if lane.client is not None:
            self._send_to(lane, [stream], wait=True)
        return stream

    def _require_room(self, submits: Sequence[Submit]) -> None:
        self._require_was_ready()
        if len(self._streams) + sum(len(submit.choices) for submit in submits) > self._settings.max_in_flight:
            raise retry_later(429, "the queue is full; try again later", OVERLOADED)
        for submit in submits:
            self._require_fits(submit)

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
        """Streams of one prompt; to another replica if one has no room. Raises ApiError 429."""
        submit, full = streams[0].submit, set(self._recovery.reserved)
        if not self.lanes.any_up:
            for stream in streams:
                stream.home = NOWHERE  # `attach` sends them with the others
            return
        while (choice := self.lanes.choose(submit, without=full)) is not None:
            if self._send_to(self.lanes.settle(streams, choice), streams, wait=wait):
                return
            full.add(choice.replica)
        for stream in streams:
            self.lanes.on_end(stream)
        raise retry_later(429, "too many requests at once; try again later", OVERLOADED)

    def _send_to(self, lane: Lane, streams: Sequence[TokenStream], *, wait: bool) -> bool:
        """False: there is no room now."""
        client = lane.client
        assert client is not None
        if client.resuming:
            self._recovery.resume(streams, lane)
            return True
        with contextlib.suppress(ipc.PeerDied, ipc.RingClosed):  # then they are sent again with the others
            if client.try_send(streams[0].submit.pack()):
                return True
            if not wait:
                return False
            client.send_later(functools.partial(_first_time, streams))
        return True

    def finish(self, stream: TokenStream, *, cancel: bool) -> None:
        """Forget a request. With `cancel` the pipeline stops it; tokens that still arrive are dropped."""
        stream.stop()
        self._forget(stream, cancel=cancel)

    def _forget(self, stream: TokenStream, *, cancel: bool) -> None:
        self._streams.pop(stream.request, None)
        self._counters.set(FrontCounter.IN_FLIGHT, len(self._streams))
        self.lanes.on_end(stream)
        if cancel and stream.home != NOWHERE:
            self._cancel(stream.request, self.lanes[stream.home])
        self._recovery.look_after()

    def cancel(self, request: int, replica: int) -> None:
        """Of a guest that is gone."""
        self._cancel(request, self.lanes[replica])

    def _cancel(self, request: int, lane: Lane) -> None:
        """A cancellation may have to wait for room, but is never lost."""
        client, record = lane.client, Cancel(request).pack()
        if client is not None:
            with contextlib.suppress(ipc.PeerDied, ipc.RingClosed):  # then the request is gone, too
                if not client.try_send(record):
                    client.send_later(lambda: record)

    # ---- answers --------------------------------------------------------------------------------------------

    async def _read(self, lane: Lane, client: LaneClient) -> None:
        """Until the rings close, or a record can't be parsed."""
        try:
            await client.run()
        except Exception:
            log.exception(_UNREADABLE)
            self._fail_all(_UNREADABLE, lane)
        lane.closed.set()
        self.lanes.down(lane)
        if self._streams and not self.lanes.several:
            log.warning("a stage ended: %d requests wait until the pipeline is complete again", len(self._streams))

    def _fail_all(self, why: str, lane: Lane | None = None) -> None:
        """Of one lane, or of all."""
        error = retry_later(503, f"the request was lost: {why}", UNAVAILABLE)
        for stream in list(self._streams.values()):
            if lane is None or stream.home == lane.replica:
                stream.fail(error)
        self._encodings.fail_all(error, lane)

    def _sweep(self, woken: Lane, records: list[bytes]) -> None:
        """What has come through the lane that was woken, and what has come through others meanwhile: tokens of all
        replicas are written to their clients in one pass."""
        for lane in self.lanes.ringed:
            if lane is not woken and lane.up and lane.client is not None:
                with contextlib.suppress(ipc.PeerDied, ipc.RingClosed):  # its own reader sees that, too
                    records += lane.client.take_deltas()
        for lane in self.lanes.ringed:
            if lane.client is not None:
                for record in lane.client.take_replies():
                    self._on_reply(record)
        self._on_deltas(records)

    def _on_deltas(self, records: Sequence[bytes]) -> None:
        """Pass each stream all of its records at once: usually one token, under load several."""
        now, streams, came = time.monotonic_ns(), self._streams, defaultdict[TokenStream, list[bytes]](list)
        on_guests_delta = self.guests.on_delta
        for record in records:
            request, attempt, index, token, reason = delta_head(record)
            stream = streams.get(request)
            if stream is None or attempt != stream.attempt:
                if stream is not None or not on_guests_delta(request, attempt, reason, record):
                    self._counters.add(FrontCounter.DROPPED_DELTAS)
            elif index == len(stream.tokens) + 1 or token < 0:  # a failure is not a token, and has no index
                stream.note(token, reason)
                came[stream].append(record)
                if stream.prefilling:
                    self.lanes.on_first_token(stream)
            elif reason == SCORES:
                self._on_scores(stream, record)
            else:
                self._break(stream, index)
        for stream, own in came.items():
            stream.push(own, now)
        self.outbox.flush(now)
        self.guests.flush()
        self._recovery.look_after()

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
        if self.guests.on_reply(reply, record):
            return
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
            stream.accepted_in = stream.home, self.lanes[stream.home].generation
            self.lanes.on_accepted(stream)
        elif isinstance(reply, Refused):
            stream.fail(self._refusal(reply))
        else:
            stream.cached_tokens = reply.cached_tokens
            if stream.waited_ns is None:
                stream.waited_ns, stream.work = reply.waited_ns, self._stats.work()
            self.lanes.on_started(stream)

    def _refusal(self, reply: Refused) -> ApiError:
        if reply.status in (429, 503):
            kind = OVERLOADED if reply.status == 429 else UNAVAILABLE
            return retry_later(reply.status, reply.message, kind, code=reply.code)
        kind = INVALID if reply.status < 500 else SERVER
        return ApiError(reply.status, reply.message, kind=kind, parameter=reply.parameter, code=reply.code)


def _first_time(streams: Sequence[TokenStream]) -> bytes | None:
    live = [stream.choice for stream in streams if stream.live]
    return streams[0].submit.with_choices(live).pack() if live else None
