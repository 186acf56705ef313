"""Replicas, as the front sees them: the rings to and from each while there are any, and who gets a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from typing import Protocol, TypeAlias

import ipc
from pipeline.front.delivery.ring_client import Late
from pipeline.front.delivery.routing import Choice, Router
from pipeline.front.delivery.stream import TokenStream
from pipeline.runtime.generations import Verdict
from pipeline.wire.request import Request, Submit, unpack_request

NOWHERE = -1
"""The home of a request that waits for whichever replica comes first."""


class LaneClient(Protocol):
    """What there is to a replica while it serves: `RingClient`, or a link to another machine."""

    resuming: int  # requests in the outbox that were sent in an earlier generation, too

    @property
    def deterministic(self) -> bool: ...

    @property
    def rings(self) -> dict[str, ipc.ByteRing]: ...

    @property
    def max_record(self) -> int: ...

    async def run(self) -> None: ...

    async def close(self) -> None: ...

    def wake(self) -> None: ...

    def try_send(self, record: bytes) -> bool: ...

    def send_later(self, late: Late, *, resumes: bool = False) -> None: ...

    def take_deltas(self) -> list[bytes]: ...

    def take_replies(self) -> list[bytes]: ...


Connect: TypeAlias = Callable[[Callable[[list[bytes]], None], Callable[[bytes], None]], LaneClient]
"""Makes one that calls these with deltas and replies, as `RingClient` does."""


class Lane:
    """To one replica. `attach` and `detach` are the backend's. Made inside a running loop."""

    def __init__(self, replica: int) -> None:
        self.replica = replica
        self.generation = 0  # that it has rings of, or had last
        self.client: LaneClient | None = None
        self.closed = asyncio.Event()  # nothing more comes from these rings
        self.reading: asyncio.Task[None] | None = None
        self.detached = True  # all that its rings held has been read, and nothing of them is left
        self.verdict: Verdict | None = None  # who may be to blame for the end of this generation
        self.away = False  # it does not come back soon
        self.weights = ""  # id of those that this generation is computed with
        self.on_trial = False  # those have not answered yet

    def attach(self, client: LaneClient, generation: int, weights: str, *, on_trial: bool = False) -> None:
        self.client, self.generation, self.weights, self.on_trial = client, generation, weights, on_trial
        self.detached, self.away = False, False
        if self.verdict is not None and self.verdict.generation < generation:
            self.verdict = None
        self.closed.clear()

    @property
    def up(self) -> bool:
        """Requests can be sent there."""
        return self.client is not None and not self.closed.is_set() and not self.on_trial


class Lanes:
    """To all replicas. Made inside a running loop. The router is asked only where there are several."""

    def __init__(self, replicas: int, router: Router) -> None:
        self._lanes = [Lane(replica) for replica in range(replicas)]
        self._router = router
        self.several = replicas > 1
        self.leaving: set[int] = set()  # replicas to which nothing new goes while there are others
        self._unable: set[int] = set()  # replicas where no request can be deterministic
        self.newest = ""  # weights that replicas are being given, while they are
        self.only: Lane | None = None  # that is up, if only one is: where the next request goes
        self.ringed: list[Lane] = []  # those with rings; of links nothing waits to be taken
        for replica in range(replicas):
            router.replica_down(replica)

    def __getitem__(self, replica: int) -> Lane:
        return self._lanes[replica]

    def __len__(self) -> int:
        return len(self._lanes)

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes)

    def preferred(self, without: Collection[int]) -> list[int] | None:
        """For a text that has begun: while weights are being changed, replicas that have the new ones, a row for it,
        and are none of these (None: there are none, or nothing is changed). So a text changes weights once, and the
        first that has new ones is not to serve everybody."""
        if not self.newest:
            return None
        new = (lane for lane in self._lanes if lane.up and lane.weights == self.newest)
        open_ = (lane.replica for lane in new if lane.replica not in without)
        return [replica for replica in open_ if not self._router.is_full(replica)] or None

    def weights(self) -> list[tuple[int, str]]:
        """The id of those that each replica that is up computes with, where it is known."""
        return [(lane.replica, lane.weights) for lane in self._lanes if lane.up and lane.weights]

    @property
    def any_up(self) -> bool:
        return any(lane.up for lane in self._lanes)

    @property
    def open(self) -> list[int]:
        """Where something new may go: replicas that are up, and of these none that leaves, if there are others."""
        up = [lane.replica for lane in self._lanes if lane.up]
        return [replica for replica in up if replica not in self.leaving] or up

    def choose(
        self, submit: Submit, among: Collection[int] | None = None, *, without: Collection[int] = (), output: int = 0
    ) -> Choice | None:
        """One of these replicas (None: of all), but none of the others, that is up; None if there is none. `output`:
        tokens that are there already. One that is to be deterministic goes where it can be; if that is nowhere, it is
        refused wherever it goes, or waits if it has begun."""
        if self._unable and (output or self._any_able) and unpack_request(submit.params).deterministic:
            without = {*without, *self._unable}
        if not self.several:
            return None if 0 in without or not self._lanes[0].up else Choice(0)
        prompt = submit.token_ids if submit.text is None else submit.text
        request = unpack_request(submit.params)
        root = _root_of(request)
        return self._router.pick(prompt, among, without=without, root=root, output=output)

    @property
    def _any_able(self) -> bool:
        return any(lane.up and lane.replica not in self._unable for lane in self._lanes)

    def settle(self, streams: Sequence[TokenStream], choice: Choice) -> Lane:
        """These, of one prompt, go where the choice says."""
        lane = self._lanes[choice.replica]
        for stream in streams:
            stream.home, stream.prefilling = choice.replica, self.several
            stream.computed_with(lane.weights)
        if self.several:
            self._router.sent(choice, [stream.request for stream in streams])
        return lane

    # ---- for the router ---------------------------------------------------------------------------------------

    def up_again(self, lane: Lane) -> None:
        """Its client is attached."""
        able = lane.client is None or lane.client.deterministic
        (self._unable.discard if able else self._unable.add)(lane.replica)
        self._find_only()
        self._router.replica_up(lane.replica)

    def down(self, lane: Lane) -> None:
        """Nothing can be sent there any more. Twice is harmless."""
        self._find_only()
        self._router.replica_down(lane.replica)

    def _find_only(self) -> None:
        up = list(islice((lane for lane in self._lanes if lane.up), 2))
        self.only = up[0] if len(up) == 1 else None

    def on_load(self, replica: int, others: int) -> None:
        """So many requests of other fronts are there."""
        self._router.elsewhere(replica, others)

    def on_accepted(self, stream: TokenStream) -> None:
        if self.several:
            self._router.accepted(stream.request, stream.prompt_tokens)

    def on_started(self, stream: TokenStream) -> None:
        if self.several:
            cached = stream.cached_tokens
            # A prompt that is scored is computed whole, whatever is cached.
            scored = not cached and unpack_request(stream.submit.params).prompt_logprobs is not None
            self._router.started(stream.request, cached, tells=not scored)

    def on_first_token(self, stream: TokenStream) -> None:
        stream.prefilling = False
        self._router.prefilled(stream.request)

    def on_end(self, stream: TokenStream) -> None:
        if self.several:
            self._router.finished(stream.request, len(stream.tokens))


def _root_of(request: Request) -> str:
    """Where the prompt's blocks begin, as in preprocess: those of a deterministic request are its own."""
    return f"{request.adapter} deterministic" if request.deterministic else request.adapter
