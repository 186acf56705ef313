"""A router's front in simulated time: lanes, routing and recovery are the server's own (`pipeline.front.delivery`);
links, and clients, are not there. Its CPU is a queue: nothing is sent or shown before the work that came earlier is
done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ipc
from model.sampling.params import SamplingParams
from pipeline.front.delivery.lane import Lane, Lanes
from pipeline.front.delivery.recovery import Recovery
from pipeline.front.delivery.ring_client import Late
from pipeline.front.delivery.routing.router import Router, Weights
from pipeline.front.delivery.stream import TokenStream
from pipeline.runtime.generations import Verdict
from pipeline.stats import Counters
from pipeline.wire.request import Choice, Request, Submit, unpack_message
from pipeline.wire.topology import INFERENCE
from scripts.bench.nodes.costs import RouterCosts
from scripts.bench.nodes.seen import Seen
from scripts.bench.routing.clock import Clock
from scripts.bench.routing.replica import Device
from scripts.bench.routing.requests import Asked

SendTo = Callable[[int, Submit], None]
"""To the node with this number."""

_LONGEST = 1 << 30
PARAMS = Request(SamplingParams(), _LONGEST).pack()


class _Counts(Counters):
    """Beside the statistics page, which a simulation has not."""

    def __init__(self) -> None:
        self._words = memoryview(bytearray(8 * 256)).cast("q")


class _NodeClient:
    """What a lane has of its node: records arrive at once, in order."""

    resuming = 0
    max_record = _LONGEST
    deterministic = True

    def __init__(self, clock: Clock, send: Callable[[bytes], None]) -> None:
        self._clock, self._send = clock, send

    @property
    def rings(self) -> dict[str, ipc.ByteRing]:
        return {}

    def try_send(self, record: bytes) -> bool:
        self._send(record)
        return True

    def send_later(self, late: Late, *, resumes: bool = False) -> None:
        def go() -> None:
            if (record := late()) is not None:
                self._send(record)

        self._clock.at(self._clock.now, go)

    async def run(self) -> None: ...

    async def close(self) -> None: ...

    def wake(self) -> None: ...

    def take_deltas(self) -> list[bytes]:
        return []

    def take_replies(self) -> list[bytes]:
        return []


@dataclass(slots=True)
class _Live:
    asked: Asked
    stream: TokenStream
    last: float  # when its client last saw something
    attempt: int = 0  # the last one that has brought a token


class Front:
    """`nodes`: those that it has links to."""

    def __init__(
        self, nodes: range, device: Device, costs: RouterCosts, clock: Clock, seen: Seen, send: SendTo, first: int
    ) -> None:
        weights, cached = Weights(rows=device.rows), device.blocks * device.block_size
        self.nodes = nodes
        self._clock, self._costs, self._seen, self._send_to = clock, costs, seen, send
        self.lanes = Lanes(len(nodes), Router(len(nodes), weights, cached_tokens=cached, first=first % len(nodes)))
        self._streams: dict[int, TokenStream] = {}
        self._live: dict[int, _Live] = {}
        self._recovery = Recovery(self.lanes, self._streams, _Counts())
        self._free_at = 0.0  # its CPU
        self.busy_ms = 0.0  # since then
        for node in nodes:
            self.on_up(node)

    def _work(self, ms: float) -> float:
        """When it is done."""
        now = self._clock.now
        self._free_at = max(now, self._free_at) + ms
        if now >= self._seen.since:
            self.busy_ms += ms
        return self._free_at

    def has(self, request: int) -> bool:
        return request in self._streams

    # ---- requests ---------------------------------------------------------------------------------------------

    def on_request(self, asked: Asked) -> None:
        self._clock.at(self._work(self._costs.request_ms(len(self.lanes))), lambda: self._send(asked))

    def _send(self, asked: Asked) -> None:
        choice = Choice(asked.number)
        submit = Submit((choice,), PARAMS, token_ids=asked.prompt.tobytes())
        self._streams[asked.number] = stream = TokenStream(submit, choice, _LONGEST)
        self._live[asked.number] = _Live(asked, stream, asked.arrival)
        picked = self.lanes.choose(submit, without=self._recovery.reserved)
        assert picked is not None, "no node is left"
        self.lanes.settle([stream], picked)
        self._send_to(self.nodes[picked.replica], submit)
        stream.accept(len(asked.prompt), -1)
        self.lanes.on_accepted(stream)

    # ---- what nodes say ---------------------------------------------------------------------------------------

    def on_started(self, asked: Asked, cached: int) -> None:
        self._seen.on_started(asked, cached)
        stream = self._streams[asked.number]
        stream.cached_tokens = cached
        self.lanes.on_started(stream)

    def on_tokens(self, got: Sequence[Asked]) -> list[tuple[Asked, float]]:
        """Of one step. Returns those that are over, and when."""
        shown = self._work(self._costs.tokens_ms(len(got)))
        over = []
        for asked in got:
            live = self._live[asked.number]
            if self._show(live, shown):
                over.append((asked, shown))
        self._recovery.look_after()
        return over

    def _show(self, live: _Live, now: float) -> bool:
        asked, stream = live.asked, live.stream
        last = asked.made == len(asked.output)
        stream.note(int(asked.output[asked.made - 1]), last)
        assert len(stream.tokens) == asked.made, "a token is missing, or came twice"
        if stream.prefilling:
            self.lanes.on_first_token(stream)
        self._seen.on_token(asked, now, live.last, resumed=stream.attempt > live.attempt)
        live.last, live.attempt = now, stream.attempt
        if asked.made == 1:
            asked.first = now
        if last:
            asked.end = now
            del self._streams[asked.number], self._live[asked.number]
            self.lanes.on_end(stream)
        return last

    # ---- what becomes of nodes --------------------------------------------------------------------------------

    def _lane(self, node: int) -> Lane:
        return self.lanes[self.nodes.index(node)]

    def on_up(self, node: int) -> None:
        lane = self._lane(node)
        client = _NodeClient(self._clock, lambda record: self._pass_on(node, record))
        lane.attach(client, lane.generation + 1, "")
        self.lanes.up_again(lane)
        if self._streams:
            self._recovery.on_attached(lane)

    def _pass_on(self, node: int, record: bytes) -> None:
        submit = unpack_message(record)
        assert isinstance(submit, Submit)
        self._send_to(node, submit)

    def on_lost(self, node: int, suspects: Sequence[int] | None) -> None:
        """`suspects`: of a node whose inference failed by itself; None: nobody is to blame."""
        lane = self._lane(node)
        lane.client, lane.detached = None, True
        self.lanes.down(lane)
        culprit = "" if suspects is None else INFERENCE.name
        self._seen.moved += sum(stream.home == lane.replica for stream in self._streams.values())
        self._recovery.on_verdict(lane, Verdict(lane.replica, lane.generation, culprit, tuple(suspects or ())))

    def on_load(self, node: int, others: int, *, alone: bool) -> None:
        """`alone`: no tokens came with it."""
        self.lanes.on_load(self.nodes.index(node), others)
        if alone:
            self._work(self._costs.tokens_ms(0))

    def on_away(self, node: int) -> None:
        self._recovery.on_away(self.nodes.index(node))
