"""A router's links: one to each node, made again whenever it breaks.

The lanes of a node whose link is gone are down, and what was there goes on elsewhere, behind the tokens that its
clients have. Nobody is to blame for that, unless the node has said so before.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import defaultdict
from collections.abc import Callable, Sequence

from pipeline.front.delivery.backend import Backend
from pipeline.front.links.remote_client import RemoteClient
from pipeline.front.metrics.links import NodeFigures
from pipeline.front.settings import LinkSettings
from pipeline.link.connection import MISSED, MOST_UNREAD, Connection, split_place
from pipeline.link.frames import Frame, Kind, LinkError, legible, records_of
from pipeline.link.hello import Blame, Hello, Load, Room, Taken, difference, told, unpack_hello
from pipeline.link.tls import router_context, why_refused
from pipeline.runtime.generations import AWAY_S, Verdict
from pipeline.wire.topology import PREPROCESS

log = logging.getLogger("ringserve.front")

_SOON_S, _LATEST_S = 0.1, 3.0  # between two attempts: it doubles
_LOOK_S = 0.05
_LASTING_S = 1.0  # a link that breaks sooner is not made again at once
_ENDS = frozenset({Kind.REFUSED, Kind.CLOSED, Kind.UP, Kind.DOWN})  # of a generation: what came before counts


class RemoteLane:
    """To one replica of a node, which has one generation after the other. `replica`: its number here."""

    def __init__(self, backend: Backend, replica: int, on_change: Callable[[], None]) -> None:
        self._backend, self.replica, self._on_change = backend, replica, on_change
        self._coming = asyncio.Queue[RemoteClient]()
        self._idle = asyncio.Event()  # not attached
        self._idle.set()
        self._generations = 0
        self.client: RemoteClient | None = None  # the last one

    async def follow(self) -> None:
        """Until cancelled."""
        lane = self._backend.lanes[self.replica]
        while True:
            client = await self._coming.get()
            if client.ended:
                continue
            self._idle.clear()
            self._generations += 1
            client.number = self._generations
            self._backend.attach_client(client.bind, self.replica, client.number, client.weights)
            self._on_change()
            await lane.closed.wait()
            await self._backend.detach(self.replica)
            self._idle.set()
            self._on_change()

    def on_up(self, client: RemoteClient) -> None:
        self.end()
        self.client = client
        self._coming.put_nowait(client)

    def on_verdict(self, culprit: str, suspects: tuple[int, ...] | None) -> None:
        """About the last generation."""
        client = self.client
        if client is None or client.judged or not client.number:
            return
        client.judged = True
        self._backend.on_verdict(Verdict(self.replica, client.number, culprit, suspects))
        if not self._backend.lanes.several and culprit == PREPROCESS.name:
            self._backend.blame(suspects or ())

    def end(self) -> None:
        """The replica has no rings any more, or nobody knows."""
        if self.client is not None:
            self.client.end()

    def lost(self) -> None:
        """The link is gone."""
        self.on_verdict("", ())
        self.end()

    @property
    def leaving(self) -> bool:
        return self.replica in self._backend.lanes.leaving

    @leaving.setter
    def leaving(self, leaves: bool) -> None:
        leaving = self._backend.lanes.leaving
        (leaving.add if leaves else leaving.discard)(self.replica)

    async def vacate(self) -> None:
        """After the last link of a node: what was there is elsewhere, and what waited for it goes there, too."""
        await self._idle.wait()
        self._backend.on_away(self.replica)
        self.leaving = False

    def of(self, frame: Frame) -> RemoteClient | None:
        """Whom the frame is for; what is said of an earlier generation is nobody's."""
        return self.client if self.client is not None and self.client.generation == frame.generation else None


class NodeLink:
    """To one node; `address` is its host and port, `lanes` are those to its replicas, in order."""

    def __init__(
        self,
        address: str,
        lanes: Sequence[RemoteLane],
        backend: Backend,
        mine: Hello,
        settings: LinkSettings,
        context: ssl.SSLContext,
    ) -> None:
        self.address, self.lanes, self._backend, self._mine = address, lanes, backend, mine
        self._settings, self._context = settings, context
        self._connection: Connection | None = None
        self._told = ""  # the last line of the log about it
        self.linked = False
        self.links = 0  # so far
        self._deltas = defaultdict[RemoteClient, list[bytes]](list)  # that have come, and are to be passed on
        self._before = 0, 0  # bytes received and sent over earlier ones

    @property
    def leaving(self) -> bool:
        """Nothing new goes there while there are other nodes."""
        return self.lanes[0].leaving

    @leaving.setter
    def leaving(self, leaves: bool) -> None:
        for lane in self.lanes:
            lane.leaving = leaves

    @property
    def lanes_up(self) -> int:
        return sum(self._backend.lanes[lane.replica].up for lane in self.lanes)

    @property
    def figures(self) -> NodeFigures:
        received, sent = self._before
        if (now := self._connection) is not None:
            received, sent = received + now.received, sent + now.sent
        return NodeFigures(self.address, self.linked, self.lanes_up, self.links, received, sent)

    async def run(self) -> None:
        """Until cancelled."""
        delay, loop = _SOON_S, asyncio.get_running_loop()
        down_since, reported = loop.time(), True
        while True:
            links, began = self.links, loop.time()
            why = await self._link()
            if self.links > links:
                down_since, reported = loop.time(), False
                delay = _SOON_S if loop.time() - began > _LASTING_S else delay
            self._say(f"node {self.address}: no link: {why}")
            if not reported and loop.time() - down_since > AWAY_S:
                reported = True
                for lane in self.lanes:
                    self._backend.on_away(lane.replica)
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LATEST_S)

    async def _link(self) -> str:
        """Why there is none any more."""
        over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def lost(why: str) -> None:
            if not over.done():
                over.set_result(why)

        try:
            connection = await self._connect(lost)
        except (OSError, TimeoutError, ValueError) as error:  # ValueError: of a host that can't be one
            return why_refused(error)
        self._connection = connection
        connection.send(Kind.HELLO, self._mine.pack())
        try:
            return await over
        finally:
            self._connection = None
            self._before = self._before[0] + connection.received, self._before[1] + connection.sent
            self._lose()
            connection.abort("the router ends")

    async def _connect(self, lost: Callable[[str], None]) -> Connection:
        """Raises OSError, TimeoutError."""
        host, port = split_place(self.address)
        settings = self._settings
        timeout = max(1.0, MISSED * settings.heartbeat_s)
        rooms = 2 * settings.longest_request * len(self.lanes)  # may wait for a node that reads slowly
        async with asyncio.timeout(timeout):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(
                    settings.longest_answer, settings.heartbeat_s, self._on_frames, lost, MOST_UNREAD + rooms
                ),
                host,
                port,
                ssl=self._context,
                server_hostname=host,
            )
        return connection

    def _lose(self) -> None:
        self.linked = False
        self._deltas.clear()  # of a link that broke while they were read
        for lane in self.lanes:
            lane.lost()

    def _say(self, text: str) -> None:
        """Once, until something else is to be said."""
        if text != self._told:
            self._told = text
            log.warning("%s", legible(text))

    # ---- what the node says ---------------------------------------------------------------------------------

    def _on_frames(self, frames: list[Frame]) -> None:
        """Raises LinkError, also for a record that can't be read: nothing behind it is to be believed."""
        try:
            for frame in frames:
                if frame.kind in _ENDS:
                    self._pass_on()
                if frame.kind in (Kind.REFUSED, Kind.CLOSED):
                    self._end(frame.payload.decode(errors="replace"))
                    return
                self._on_frame(frame)
            self._pass_on()
        except LinkError:
            raise
        except Exception as error:
            log.exception("a record of node %s could not be parsed", self.address)
            raise LinkError("a record could not be parsed") from error

    def _on_frame(self, frame: Frame) -> None:
        if frame.kind is Kind.HELLO:
            self._on_hello(unpack_hello(frame.payload))
        elif frame.kind is not Kind.BEAT:
            self._on_lane(frame)

    def _pass_on(self) -> None:
        """All deltas that have come together: what a stream has of several steps is written at once."""
        while self._deltas:
            client, records = self._deltas.popitem()
            client.on_deltas(records)

    def _end(self, why: str) -> None:
        if self._connection is not None:
            self._connection.abort(f"the node says: {why}")

    def _on_hello(self, theirs: Hello) -> None:
        if why := difference(self._mine, theirs):
            raise LinkError(why)
        self.linked = True
        self.links += 1
        self._say(f"node {self.address}: linked")

    def _on_lane(self, frame: Frame) -> None:
        if frame.lane >= len(self.lanes):
            raise LinkError(f"the node has no lane {frame.lane}")
        lane = self.lanes[frame.lane]
        if frame.kind is Kind.UP:
            assert self._connection is not None  # frames come through it
            room = told(frame.payload, Room)
            lane.on_up(RemoteClient(self._connection, frame.lane, frame.generation, room))
        elif (client := lane.of(frame)) is not None:
            self._on_client(frame, lane, client)

    def _on_client(self, frame: Frame, lane: RemoteLane, client: RemoteClient) -> None:
        kind = frame.kind
        if kind is Kind.DELTAS:
            self._deltas[client] += records_of(frame.payload)
        elif kind is Kind.REPLIES:
            client.on_replies(records_of(frame.payload))
        elif kind is Kind.TAKEN:
            client.on_taken(told(frame.payload, Taken).octets)
        elif kind is Kind.LOAD:
            self._backend.lanes.on_load(lane.replica, told(frame.payload, Load).others)
        elif kind is Kind.DOWN:
            lane.end()
        elif kind is Kind.VERDICT:
            blame = told(frame.payload, Blame)
            lane.on_verdict(blame.culprit, blame.suspects)
        elif kind is Kind.AWAY:
            self._backend.on_away(lane.replica)


class NodeLinks:
    """All of them. Made inside a running loop. Raises CertificateError. `on_change` is called with the number of
    lanes that are up, `on_nodes` with what `put` was told.

    There is room for a fixed number of nodes, each in a place: so many lanes. A node that leaves keeps its place
    until its requests have ended, or go on elsewhere."""

    def __init__(
        self,
        backend: Backend,
        mine: Hello,
        settings: LinkSettings,
        on_change: Callable[[int], None],
        on_nodes: Callable[[Sequence[str]], None],
    ) -> None:
        self._backend, self._mine, self._settings = backend, mine, settings
        self._on_change, self._on_nodes = on_change, on_nodes
        self._context = router_context(settings.ca, settings.certificate, settings.key)
        self.lanes = [RemoteLane(backend, lane.replica, self._changed) for lane in backend.lanes]
        each = len(self.lanes) // settings.max_nodes
        places = range(0, len(self.lanes), each)
        self._places: list[Sequence[RemoteLane]] = [self.lanes[at : at + each] for at in places]  # that are free
        self._group = asyncio.TaskGroup()
        self.nodes = settings.nodes
        self.links: list[NodeLink] = []
        self._running: dict[NodeLink, asyncio.Task[None]] = {}
        self._parting: dict[NodeLink, asyncio.Task[None]] = {}

    def _changed(self) -> None:
        self._on_change(sum(link.lanes_up for link in self.links))

    async def run(self) -> None:
        """Until cancelled."""
        self._changed()
        async with self._group:
            for lane in self.lanes:
                self._group.create_task(lane.follow())
            self._fill()
            await asyncio.Event().wait()

    @property
    def most(self) -> int:
        return self._settings.max_nodes

    def node_of(self, replica: int) -> str | None:
        """Where it is; None for one whose place is free."""
        places = {lane.replica: link.address for link in self.links for lane in link.lanes}
        return places.get(replica)

    def requests(self) -> dict[str, int]:
        """How many of this router's are at each node."""
        there = self._backend.requests_at_replicas()
        return {link.address: sum(there[lane.replica] for lane in link.lanes) for link in self.links}

    def put(self, nodes: Sequence[str]) -> None:
        """These are the nodes from now on, `most` of them at most."""
        if tuple(nodes) != self.nodes:
            log.warning("nodes from now on: %s", ", ".join(nodes) or "none")
            self.nodes = tuple(nodes)
            self._on_nodes(nodes)
        for link in self.links:
            if link.address in nodes:
                self._keep(link)
            elif not link.leaving:
                link.leaving = True
                self._parting[link] = self._group.create_task(self._part_with(link))
        self._fill()

    def _fill(self) -> None:
        """Those that find no place now, get that of the next one that has left."""
        there = {link.address for link in self.links}
        for address in [node for node in self.nodes if node not in there][: len(self._places)]:
            lanes = self._places.pop(0)
            link = NodeLink(address, lanes, self._backend, self._mine, self._settings, self._context)
            self.links.append(link)
            self._running[link] = self._group.create_task(link.run())

    def _keep(self, link: NodeLink) -> None:
        """It may have been about to leave."""
        link.leaving = False
        if (task := self._parting.pop(link, None)) is not None:
            task.cancel()

    async def _part_with(self, link: NodeLink) -> None:
        """Its requests may end there, for as long as those of a server that drains."""
        until = asyncio.get_running_loop().time() + self._backend.drain_timeout_s
        while self.requests()[link.address] and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(_LOOK_S)
        self.links.remove(link)
        del self._parting[link]
        running = self._running.pop(link)
        running.cancel()
        await asyncio.wait([running])
        log.warning("node %s has left", link.address)
        for lane in link.lanes:
            await lane.vacate()
        self._places.append(link.lanes)
        self._changed()
        self._fill()
