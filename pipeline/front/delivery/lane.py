"""Replicas, as the front sees them: the rings to and from each while there are any, and who gets a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol, TypeAlias

import ipc
from pipeline.front.delivery.ring_client import Late
from pipeline.front.delivery.routing import Choice, Router
from pipeline.front.delivery.stream import TokenStream
from pipeline.runtime.generations import Verdict
from pipeline.wire.request import Submit, unpack_request

NOWHERE = -1
"""The home of a request that waits for whichever replica comes first."""


class LaneClient(Protocol):
    """What there is to a replica while it serves: `RingClient`, or a link to another machine."""

    resuming: int  # requests in the outbox that were sent in an earlier generation, too

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
        self.leaving = False  # nothing new goes there while there are others

    def attach(self, client: LaneClient, generation: int) -> None:
        self.client, self.generation = client, generation
        self.detached, self.away = False, False
        if self.verdict is not None and self.verdict.generation < generation:
            self.verdict = None
        self.closed.clear()

    @property
    def up(self) -> bool:
        """Records can be sent there."""
        return self.client is not None and not self.closed.is_set()


class Lanes:
    """To all replicas. Made inside a running loop. The router is asked only where there are several; `adapters`:
    requests may name one."""

    def __init__(self, replicas: int, router: Router, *, adapters: bool = False) -> None:
        self._lanes = [Lane(replica) for replica in range(replicas)]
        self._router, self._adapters = router, adapters
        self.several = replicas > 1

    def __getitem__(self, replica: int) -> Lane:
        return self._lanes[replica]

    def __len__(self) -> int:
        return len(self._lanes)

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes)

    @property
    def any_up(self) -> bool:
        return any(lane.up for lane in self._lanes)

    @property
    def open(self) -> list[int]:
        """Replicas to which something new may go: those that are up, and of these none that leaves, if there are
        others."""
        up = [lane for lane in self._lanes if lane.up]
        return [lane.replica for lane in up if not lane.leaving] or [lane.replica for lane in up]

    def choose(self, submit: Submit, among: Collection[int], output: int = 0) -> Choice | None:
        """One of these replicas that is up; None if there is none. `output`: tokens that are there already."""
        able = [replica for replica in among if self._lanes[replica].up]
        if not able or not self.several:
            return Choice(0) if able else None
        prompt = submit.token_ids if submit.text is None else submit.text
        root = unpack_request(submit.params).adapter if self._adapters else ""
        return self._router.pick(prompt, able, root=root, output=output)

    def settle(self, streams: Sequence[TokenStream], choice: Choice) -> Lane:
        """These, of one prompt, go where the choice says."""
        for stream in streams:
            stream.home, stream.prefilling = choice.replica, self.several
        if self.several:
            self._router.sent(choice, [stream.request for stream in streams])
        return self._lanes[choice.replica]

    # ---- for the router ---------------------------------------------------------------------------------------

    def up_again(self, lane: Lane) -> None:
        self._router.replica_up(lane.replica)

    def down(self, lane: Lane) -> None:
        self._router.replica_down(lane.replica)

    def on_accepted(self, stream: TokenStream) -> None:
        if self.several:
            self._router.accepted(stream.request, stream.prompt_tokens)

    def on_started(self, stream: TokenStream) -> None:
        if self.several:
            self._router.started(stream.request, stream.cached_tokens)

    def on_first_token(self, stream: TokenStream) -> None:
        stream.prefilling = False
        self._router.prefilled(stream.request)

    def on_end(self, stream: TokenStream) -> None:
        if self.several:
            self._router.finished(stream.request, len(stream.tokens))
