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
from typing import NamedTuple

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

_UNTOLD = 4  # a quarter of the room may have been taken and wait for a reply to be said with

_AT_A_TIME = 64  # requests of a router, half a millisecond: then others have their turn

LOADS_S = 0.25
"""After so long a router is told how many requests others have, with its own next tokens, or after as long again."""

_TIME_BYTES = 16
_ID_BYTES = 4
_NOT_THE_END = (int(FinishReason.NONE), SCORES)  # reasons of a delta


class Guest(NamedTuple):
    """A router's request that is here. `deltas`: where those go that come of it."""

    attempt: int
    replica: int
    deltas: list[bytes]


class Way:
    """From a router to one generation of a replica, and back."""

    def __init__(self, lane: Lane, room: Room) -> None:
        self.lane, self.generation, self.room = lane, lane.generation, room
        self.received = self.taken = 0  # bytes of requests: that came, and that went on into the ring
        self.replies: list[bytes] = []  # of this pass, as are the deltas
        self.deltas: list[bytes] = []
        self.others = 0  # requests of other routers
        self._taken = self._others = 0  # as the router was told

    @property
    def is_open(self) -> bool:
        return self.lane.up and self.lane.generation == self.generation

    @property
    def knows_of_others(self) -> bool:
        """The router was told of some, or is about to be."""
        return bool(self.others or self._others)

    @property
    def tells_soon(self) -> bool:
        """So much has been taken that the router may wait to hear it."""
        return self.taken - self._taken > self.room.window // _UNTOLD

    def put(self, connection: Connection) -> None:
        """All there is to say. What a request's reply says was known before its first token: replies go first."""
        for kind, records in ((Kind.REPLIES, self.replies), (Kind.DELTAS, self.deltas)):
            for payload in batches(records):
                connection.put(kind, payload, self.lane.replica, self.generation)
            records.clear()
        if self.taken != self._taken:
            self._taken = self.taken
            connection.put(Kind.TAKEN, tell(Taken(self.taken)), self.lane.replica, self.generation)
        self.put_others(connection)

    def put_others(self, connection: Connection) -> None:
        if self.others != self._others and self.lane.up:
            self._others = self.others
            connection.put(Kind.LOAD, tell(Load(self.others)), self.lane.replica, self.generation)


class RouterLink:
    """One router's."""

    def __init__(self, hub: RouterLinks, peer: str, longest: int, heartbeat_s: float) -> None:
        self._hub, self.peer = hub, peer
        self.connection = Connection(longest, heartbeat_s, self._on_frames, self._on_lost)
        self.number: int | None = None  # upper bits of its requests, once it has said who it is
        self._ways: dict[int, Way] = {}  # by replica, to those that have rings
        self._waiting = deque[tuple[Way, bytes]]()
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
        way = self._ways.get(self._hub.lane(frame.lane).replica)
        if way is None or way.generation != frame.generation or not way.is_open:
            return  # the router is about to hear that the lane is down, and sends them again
        room = way.room
        for record in records_of(frame.payload):
            way.received += len(record)
            if len(record) > room.longest:
                raise LinkError(f"a request of {len(record)} bytes came; {room.longest} are the most")
            if way.received - way.taken > room.window:
                raise LinkError(f"more than {room.window} bytes of requests are under way: that was the room told")
            self._waiting.append((way, record))

    def _work(self) -> None:
        """A few at a time: tokens of others do not wait for a flood of records."""
        waiting = self._waiting
        if self.gone:
            waiting.clear()
        for _ in range(min(_AT_A_TIME, len(waiting))):
            way, record = waiting.popleft()
            if way.is_open:
                self._on_request(way, record)
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

    def _on_request(self, way: Way, record: bytes) -> None:
        try:
            message = unpack_message(record)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise LinkError(f"a request can't be read: {error}") from error
        self._note(message, way)
        if isinstance(message, Submit):  # its clock is another machine's
            _check(message)
            record, size = message.arrived(time.monotonic_ns()).pack(), len(record)
        else:
            size = len(record)
        self._pass_on(way, record, size, answered=not isinstance(message, Cancel))

    def _note(self, message: Message, way: Way) -> None:
        """Which of its requests are here. Raises LinkError for another's."""
        texts = message.choices if isinstance(message, Submit) else (message,)
        if not texts or any(text.request >> NUMBER_BITS != self.number for text in texts):
            raise LinkError("a request has the number of another front")
        guests, replica = self._hub.guests, way.lane.replica
        if isinstance(message, Submit):
            guests |= {text.request: Guest(text.attempt, replica, way.deltas) for text in message.choices}
        elif isinstance(message, Encode):
            guests[message.request] = Guest(message.attempt, replica, way.deltas)
        elif isinstance(message, Cancel):
            guests.pop(message.request, None)

    def _pass_on(self, way: Way, record: bytes, size: int, *, answered: bool) -> None:
        client = way.lane.client
        assert client is not None

        def late() -> bytes | None:
            self._take(way, size, answered=answered)
            return None if self.gone else record

        with contextlib.suppress(ipc.PeerDied, ipc.RingClosed):  # the router is about to hear it
            if client.try_send(record):
                self._take(way, size, answered=answered)
            else:
                client.send_later(late)

    def _take(self, way: Way, size: int, *, answered: bool) -> None:
        """That it was is said with the reply, if there will be one and there is room until then."""
        way.taken += size
        if not answered or way.tells_soon:
            self._write_soon()

    # ---- what it is told ------------------------------------------------------------------------------------

    def on_reply(self, replica: int, record: bytes) -> None:
        """It goes with all others of this pass."""
        self._ways[replica].replies.append(record)
        self._write_soon()

    def _write_soon(self) -> None:
        if not self._writing:
            self._writing = True
            self._loop.call_soon(self._write)

    def flush(self) -> None:
        """All deltas that came together are there: they need not wait for the end of this pass."""
        if any(way.deltas for way in self._ways.values()):
            self._write()

    def _write(self) -> None:
        self._writing = False
        for way in self._ways.values():
            way.put(self.connection)
        self.connection.flush()

    def tell_loads(self, every: Mapping[int, int], own: Mapping[int, int]) -> None:
        """Requests of all routers and of this one, by replica. It is told with the next tokens, or after as long
        again: a frame by itself costs the router more."""
        for replica, way in self._ways.items():
            way.put_others(self.connection)
            way.others = every[replica] - own[replica]
        self.connection.flush()

    @property
    def knows_of_others(self) -> bool:
        return any(way.knows_of_others for way in self._ways.values())

    def lane_up(self, lane: Lane) -> None:
        if lane.client is not None:
            room = _room(lane.client, lane.weights, deterministic=self._hub.is_deterministic(lane))
            self._ways[lane.replica] = Way(lane, room)
            self.connection.send(Kind.UP, tell(room), lane.replica, lane.generation)

    def lane_down(self, lane: Lane) -> None:
        """All that its rings held has been read."""
        self._write()
        self._ways.pop(lane.replica, None)
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
        self.guests: dict[int, Guest] = {}  # requests of all of them
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
        return bool(self.guests)

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
        return RouterFigures(len(links), len(self.guests), self._made, self._refused, received, sent)

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
                own = defaultdict[int, Counter[int]](Counter)
                for request, guest in self.guests.items():
                    own[request >> NUMBER_BITS][guest.replica] += 1
                every = sum(own.values(), Counter[int]())
                for number, link in [*self._links.items()]:
                    link.tell_loads(every, own[number])

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
        own = [request for request in self.guests if request >> NUMBER_BITS == link.number]
        text = "link from %s is gone: %s; %d requests are cancelled"
        log.warning(text, link.peer, legible(why), len(own))
        for request in own:
            self._backend.cancel(request, self.guests.pop(request).replica)

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
        self.guests = {request: guest for request, guest in self.guests.items() if guest.replica != lane.replica}

    def on_verdict(self, verdict: Verdict) -> None:
        for link in self._every:
            link.tell_verdict(verdict)

    def on_away(self, replica: int) -> None:
        for link in self._every:
            link.connection.send(Kind.AWAY, b"", replica, self.lane(replica).generation)

    def on_delta(self, request: int, attempt: int, reason: int, record: bytes) -> bool:
        guest = self.guests.get(request)
        if guest is None or guest.attempt != attempt:
            return False
        if reason not in _NOT_THE_END:
            del self.guests[request]
        guest.deltas.append(record)
        return True

    def on_reply(self, reply: Reply, record: bytes) -> bool:
        guest = self.guests.get(reply.request)
        if guest is None or guest.attempt != reply.attempt:
            return False
        if isinstance(reply, Refused) or (isinstance(reply, Encoded) and reply.last):
            del self.guests[reply.request]
        self._links[reply.request >> NUMBER_BITS].on_reply(guest.replica, record)
        return True
