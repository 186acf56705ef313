"""A node's links: routers connect, and their requests go through this front into its replicas' rings.

A router has a certificate, but what it sends is checked like what any other machine sends: it speaks of its own
requests only, and has no more under way than the ring takes. Whatever ends its link cancels what it has here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import time
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence

import msgspec

import ipc
from pipeline.front.delivery.backend import NUMBER_BITS, Backend
from pipeline.front.delivery.lane import Lane, LaneClient, Lanes
from pipeline.front.metrics.links import RouterFigures
from pipeline.front.settings import LinkSettings
from pipeline.link.connection import MISSED, Connection
from pipeline.link.frames import Frame, Kind, LinkError, batches, legible, records_of
from pipeline.link.hello import Blame, Hello, Load, Room, Taken, difference, tell, unpack_hello
from pipeline.link.tls import node_context, why_refused
from pipeline.runtime.generations import Verdict
from pipeline.wire.delta import SCORES, FinishReason
from pipeline.wire.request import (
    Cancel,
    Encode,
    Encoded,
    Message,
    Refused,
    Reply,
    Submit,
    unpack_message,
    unpack_request,
)

log = logging.getLogger("ringserve.front")

MOST_LINKS = 64
MOST_HANDSHAKES = 16
"""Connections of which it is not known yet who they are."""

_AT_A_TIME = 64  # requests of a router, half a millisecond: then others have their turn

LOADS_S = 0.25
"""After so long a router is told how many requests others have, with its own next tokens, or after as long again."""

_TIME_BYTES = 16
_ID_BYTES = 4
_NOT_THE_END = (int(FinishReason.NONE), SCORES)  # reasons of a delta


class RouterLink:
    """One router's."""

    def __init__(self, hub: RouterLinks, peer: str, longest: int, heartbeat_s: float) -> None:
        self._hub, self.peer = hub, peer
        self.connection = Connection(longest, heartbeat_s, self._on_frames, self._on_lost)
        self.number: int | None = None  # upper bits of its requests, once it has said who it is
        self.live: dict[int, tuple[int, int]] = {}  # its requests: attempt, replica
        self._received = defaultdict[int, int](int)  # bytes of requests by replica, in its generation
        self._taken = defaultdict[int, int](int)
        self._told = defaultdict[int, int](int)
        self._others = Counter[int]()  # requests of other routers by replica, as this one was told
        self._untold = Counter[int]()  # as they are now
        self._waiting = deque[tuple[Lane, int, bytes]]()
        self._out = defaultdict[tuple[int, Kind], list[bytes]](list)
        self._writing = self._working = False
        self.refused = self.gone = False
        self._loop = asyncio.get_running_loop()

    # ---- what the router says -------------------------------------------------------------------------------

    def _on_frames(self, frames: list[Frame]) -> None:
        """Raises LinkError."""
        for frame in frames:
            if frame.kind is Kind.HELLO and self.number is None:
                self._hub.greet(self, unpack_hello(frame.payload))
                if self.number is None:
                    return
            elif frame.kind is Kind.REQUESTS:
                self._on_requests(frame)
            elif frame.kind is Kind.COMING:
                self._hub.announce(self._hub.lane(frame.lane))
            elif frame.kind is Kind.CLOSED:
                self.connection.abort(f"the router says: {frame.payload.decode(errors='replace')}")
            elif frame.kind is not Kind.BEAT:
                raise LinkError(f"a router does not send {frame.kind.name}")
        if not self._working:
            self._work()

    def _on_requests(self, frame: Frame) -> None:
        lane = self._hub.lane(frame.lane)
        if not lane.up or lane.generation != frame.generation or lane.client is None:
            return  # the router is about to hear that the lane is down, and sends them again
        room = _room(lane.client)
        for record in records_of(frame.payload):
            self._received[lane.replica] += len(record)
            if len(record) > room.longest:
                raise LinkError(f"a request of {len(record)} bytes came; {room.longest} are the most")
            if self._received[lane.replica] - self._taken[lane.replica] > room.window:
                raise LinkError(f"more than {room.window} bytes of requests are under way: that was the room told")
            self._waiting.append((lane, lane.generation, record))

    def _work(self) -> None:
        """A few at a time: tokens of others do not wait for a flood of records."""
        waiting = self._waiting
        if self.gone:
            waiting.clear()
        for _ in range(min(_AT_A_TIME, len(waiting))):
            lane, generation, record = waiting.popleft()
            if lane.up and lane.generation == generation:
                self._on_request(lane, record)
        self._working = bool(waiting)
        self.connection.pause(self._working)
        if self._working:
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        try:
            self._work()
        except LinkError as error:
            self._waiting.clear()
            self.connection.close(str(error))

    def _on_request(self, lane: Lane, record: bytes) -> None:
        try:
            message = unpack_message(record)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise LinkError(f"a request can't be read: {error}") from error
        self._note(message, lane.replica)
        if isinstance(message, Submit):  # its clock is another machine's
            _check(message)
            record, size = message.arrived(time.monotonic_ns()).pack(), len(record)
        else:
            size = len(record)
        self._pass_on(lane, record, size)

    def _note(self, message: Message, replica: int) -> None:
        """Which of its requests are here. Raises LinkError for another's."""
        texts = message.choices if isinstance(message, Submit) else (message,)
        if not texts or any(text.request >> NUMBER_BITS != self.number for text in texts):
            raise LinkError("a request has the number of another front")
        if isinstance(message, Submit):
            self.live |= {choice.request: (choice.attempt, replica) for choice in message.choices}
        elif isinstance(message, Encode):
            self.live[message.request] = message.attempt, replica
        elif isinstance(message, Cancel):
            self.live.pop(message.request, None)

    def _pass_on(self, lane: Lane, record: bytes, size: int) -> None:
        client = lane.client
        assert client is not None
        replica, generation = lane.replica, lane.generation

        def late() -> bytes | None:
            if lane.generation == generation:
                self._take(replica, size)
            return None if self.gone else record

        with contextlib.suppress(ipc.PeerDied, ipc.RingClosed):  # the router is about to hear it
            if client.try_send(record):
                self._take(replica, size)
            else:
                client.send_later(late)

    def _take(self, replica: int, size: int) -> None:
        self._taken[replica] += size
        self._write_soon()

    # ---- what it is told ------------------------------------------------------------------------------------

    def on_delta(self, request: int, attempt: int, reason: int, record: bytes) -> bool:
        known = self.live.get(request)
        if known is None or known[0] != attempt:
            return False
        if reason not in _NOT_THE_END:
            del self.live[request]
        self._put(known[1], Kind.DELTAS, record)
        return True

    def on_reply(self, reply: Reply, record: bytes) -> bool:
        known = self.live.get(reply.request)
        if known is None or known[0] != reply.attempt:
            return False
        if isinstance(reply, Refused) or (isinstance(reply, Encoded) and reply.last):
            del self.live[reply.request]
        self._put(known[1], Kind.REPLIES, record)
        return True

    def _put(self, replica: int, kind: Kind, record: bytes) -> None:
        """With all others of this pass."""
        self._write_soon()
        self._out[replica, kind].append(record)

    def _write_soon(self) -> None:
        if not self._writing:
            self._writing = True
            self._loop.call_soon(self._write)

    def flush(self) -> None:
        """What there is need not wait for the end of this pass."""
        if self._writing:
            self._write()

    def _write(self) -> None:
        """What a request's reply says was known before its first token: replies go first."""
        self._writing = False
        for (replica, kind), records in sorted(self._out.items()):
            generation = self._hub.lane(replica).generation
            for payload in batches(records):
                self.connection.send(kind, payload, replica, generation)
        self._out.clear()
        for replica, octets in self._taken.items():
            if octets != self._told[replica]:
                self._told[replica] = octets
                self.connection.send(Kind.TAKEN, tell(Taken(octets)), replica, self._hub.lane(replica).generation)
        self._tell_others()
        self.connection.flush()

    def tell_loads(self, every: Mapping[int, int]) -> None:
        """Of all routers' requests, by replica: with the next tokens; a frame by itself costs the router more."""
        self._tell_others()
        own = Counter(replica for _, replica in self.live.values())
        for lane in self._hub.lanes:
            self._untold[lane.replica] = every[lane.replica] - own[lane.replica]

    @property
    def knows_of_others(self) -> bool:
        """It was told of some, or is about to be."""
        return bool(self._untold) or any(self._others.values())

    def _tell_others(self) -> None:
        """What has changed."""
        for replica, others in self._untold.items():
            lane = self._hub.lane(replica)
            if lane.up and others != self._others[replica]:
                self._others[replica] = others
                self.connection.send(Kind.LOAD, tell(Load(others)), replica, lane.generation)
        self._untold.clear()

    def lane_up(self, lane: Lane) -> None:
        if lane.client is not None:
            for counted in (self._received, self._taken, self._told):
                counted[lane.replica] = 0
            del self._others[lane.replica]
            able = self._hub.is_deterministic(lane)
            room = tell(_room(lane.client, lane.weights, deterministic=able))
            self.connection.send(Kind.UP, room, lane.replica, lane.generation)

    def lane_down(self, lane: Lane) -> None:
        """All that its rings held has been read."""
        self._write()
        self.live = {request: known for request, known in self.live.items() if known[1] != lane.replica}
        self.connection.send(Kind.DOWN, b"", lane.replica, lane.generation)

    def tell_verdict(self, verdict: Verdict) -> None:
        named = verdict.suspects
        mine = None if named is None else tuple(one for one in named if one >> NUMBER_BITS == self.number)
        blame = tell(Blame(verdict.culprit, mine))
        self.connection.send(Kind.VERDICT, blame, verdict.replica, verdict.generation)

    def _on_lost(self, why: str) -> None:
        self._hub.lose(self, why)


def _check(submit: Submit) -> None:
    """What a front of this machine would not have sent. Raises LinkError."""
    try:
        unpack_request(submit.params)
    except (msgspec.MsgspecError, ValueError) as error:
        raise LinkError(f"a request's parameters can't be read: {error}") from error
    if len(submit.token_ids) % _ID_BYTES:
        raise LinkError(f"a prompt's token ids are {len(submit.token_ids)} bytes, no multiple of {_ID_BYTES}")
    if not (math.isfinite(submit.owner.weight) and submit.owner.weight > 0):
        raise LinkError(f"a request's weight is {submit.owner.weight}; it must be above 0")


def _room(client: LaneClient, weights: str = "", *, deterministic: bool = True) -> Room:
    """A record becomes a little longer here, by the time that is written into it."""
    longest = client.max_record - _TIME_BYTES
    return Room(longest, 2 * longest, weights, deterministic)


class RouterLinks:
    """All of them; `Guests` of the backend. Made inside a running loop. Raises CertificateError."""

    def __init__(self, backend: Backend, mine: Hello, settings: LinkSettings) -> None:
        self._backend, self._mine, self._settings = backend, mine, settings
        self._context = node_context(settings.ca, settings.certificate, settings.key)
        self._links: dict[int, RouterLink] = {}
        self._unknown = set[RouterLink]()  # have not said yet who they are
        self._handshakes = set[asyncio.Task[None]]()
        self._closing = False
        self._made = self._refused = 0  # links so far
        self._bytes = 0, 0  # of links that are gone, received and sent
        self._said: defaultdict[str, float] = defaultdict(float)

    def lane(self, replica: int) -> Lane:
        """Raises LinkError."""
        lanes = self._backend.lanes
        if replica >= len(lanes):
            raise LinkError(f"this node has no lane {replica}")
        return lanes[replica]

    @property
    def lanes(self) -> Lanes:
        return self._backend.lanes

    def announce(self, lane: Lane) -> None:
        """A request is about to come to it."""
        self._backend.announce(lane)

    @property
    def live(self) -> bool:
        return any(link.live for link in self._links.values())

    def flush(self) -> None:
        for link in self._every:
            link.flush()

    def is_deterministic(self, lane: Lane) -> bool:
        return self._backend.is_deterministic(lane.replica)

    @property
    def figures(self) -> RouterFigures:
        links = list(self._links.values())
        received = self._bytes[0] + sum(link.connection.received for link in links)
        sent = self._bytes[1] + sum(link.connection.sent for link in links)
        requests = sum(len(link.live) for link in links)
        return RouterFigures(len(links), requests, self._made, self._refused, received, sent)

    # ---- connections ----------------------------------------------------------------------------------------

    async def serve(self, listeners: Sequence[socket.socket]) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell_loads())
            for listener in listeners:
                group.create_task(self._accept(listener))

    async def _tell_loads(self) -> None:
        """Until cancelled. A router alone need not know: its own requests are all there are."""
        while True:
            await asyncio.sleep(LOADS_S)
            if len(self._links) > 1 or any(link.knows_of_others for link in self._links.values()):
                every = Counter(replica for link in self._links.values() for _, replica in link.live.values())
                for link in self._every:
                    link.tell_loads(every)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connected, address = await loop.sock_accept(listener)
            except OSError as error:  # the peer is gone already, or there are no descriptors
                self._refuse("a connection", str(error))
                await asyncio.sleep(0.1)
                continue
            peer = f"{address[0]}:{address[1]}"
            if len(self._handshakes) >= MOST_HANDSHAKES or len(self._links) + len(self._unknown) >= MOST_LINKS:
                connected.close()
                self._refuse(peer, f"there are {len(self._links)} links, and too many that say nothing")
            else:
                self._handshakes.add(task := loop.create_task(self._handshake(connected, peer)))
                task.add_done_callback(self._handshakes.discard)

    async def _handshake(self, connected: socket.socket, peer: str) -> None:
        loop, heartbeat = asyncio.get_running_loop(), self._settings.heartbeat_s
        link = RouterLink(self, peer, self._settings.longest_request, heartbeat)
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            async with asyncio.timeout(MISSED * heartbeat):
                await loop.connect_accepted_socket(lambda: link.connection, connected, ssl=self._context)
        except (OSError, TimeoutError) as error:
            connected.close()
            self._refuse(peer, why_refused(error))
            return
        if self._closing or link.connection.lost:
            link.connection.abort("this node is shutting down")
        elif link.number is None and not link.refused:
            self._unknown.add(link)

    def _refuse(self, peer: str, why: str) -> None:
        """Once a second for each reason: whoever floods a node does not flood its log."""
        self._refused += 1
        now = time.monotonic()
        if len(self._said) > MOST_LINKS:
            self._said.clear()
        if now - self._said[why] >= 1.0:
            self._said[why] = now
            log.warning("link from %s refused: %s", peer, legible(why))

    def greet(self, link: RouterLink, theirs: Hello) -> None:
        """The router has said who it is."""
        self._unknown.discard(link)
        why = difference(self._mine, theirs)
        if not why and theirs.number == self._mine.number:
            why = "its number is this node's own: start the router again"
        if why:
            self._refuse(link.peer, why)
            link.refused = True
            link.connection.close(why, Kind.REFUSED)
            return
        if (old := self._links.get(theirs.number)) is not None:
            old.connection.abort("the router has made another link")
        link.number = theirs.number
        self._links[theirs.number] = link
        self._made += 1
        log.info("link from %s: router %08x", link.peer, theirs.number)
        link.connection.send(Kind.HELLO, self._mine.pack())
        for lane in self._backend.lanes:
            if lane.up:
                link.lane_up(lane)
            elif lane.away:
                link.connection.send(Kind.AWAY, b"", lane.replica, lane.generation)

    def lose(self, link: RouterLink, why: str) -> None:
        """What it has here is cancelled."""
        self._unknown.discard(link)
        link.gone = True
        if link.number is None or self._links.get(link.number) is not link:
            if link.number is None and not link.refused and not self._closing:
                self._refuse(link.peer, why)
            return
        del self._links[link.number]
        self._bytes = self._bytes[0] + link.connection.received, self._bytes[1] + link.connection.sent
        text = "link from %s is gone: %s; %d requests are cancelled"
        log.warning(text, link.peer, legible(why), len(link.live))
        for request, (_, replica) in link.live.items():
            self._backend.cancel(request, replica)
        link.live.clear()

    def close(self, why: str) -> None:
        """Their requests go on elsewhere. No more links are taken."""
        self._closing = True
        for link in [*self._links.values(), *self._unknown]:
            link.connection.close(why)
            self.lose(link, why)

    # ---- of the backend -------------------------------------------------------------------------------------

    @property
    def _every(self) -> list[RouterLink]:
        """As they are now: what is sent may end one."""
        return [*self._links.values()]

    def on_attached(self, lane: Lane) -> None:
        for link in self._every:
            link.lane_up(lane)

    def on_detached(self, lane: Lane) -> None:
        for link in self._every:
            link.lane_down(lane)

    def on_verdict(self, verdict: Verdict) -> None:
        for link in self._every:
            link.tell_verdict(verdict)

    def on_away(self, replica: int) -> None:
        for link in self._every:
            link.connection.send(Kind.AWAY, b"", replica, self.lane(replica).generation)

    def on_delta(self, request: int, attempt: int, reason: int, record: bytes) -> bool:
        link = self._links.get(request >> NUMBER_BITS)
        return link is not None and link.on_delta(request, attempt, reason, record)

    def on_reply(self, reply: Reply, record: bytes) -> bool:
        link = self._links.get(reply.request >> NUMBER_BITS)
        return link is not None and link.on_reply(reply, record)
