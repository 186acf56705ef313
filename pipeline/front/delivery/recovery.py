"""What becomes of requests whose replica has lost its rings, because one of its stages died or hangs.

With one replica they wait for it. With several, those that nobody blames go on elsewhere at once, behind the tokens
that their clients have; suspects wait (see `suspects`). Nothing moves before the launcher has said who they are.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from pipeline.front.delivery.lane import NOWHERE, Lane, Lanes
from pipeline.front.delivery.stream import TokenStream
from pipeline.front.delivery.suspects import Suspects, conviction
from pipeline.front.http.errors import SERVER, ApiError
from pipeline.runtime.generations import Verdict
from pipeline.stats import Counters, FrontCounter
from pipeline.wire.topology import PREPROCESS

log = logging.getLogger("ringserve.front")

_GATHER_S: Final = 1.0


class Recovery:
    """`streams`: all requests by their numbers, in order of arrival; the backend's."""

    def __init__(self, lanes: Lanes, streams: Mapping[int, TokenStream], counters: Counters) -> None:
        self._lanes, self._streams, self._counters = lanes, streams, counters
        self._suspects = Suspects()
        self._gathering: asyncio.TimerHandle | None = None

    # ---- what happens to replicas -----------------------------------------------------------------------------

    def on_attached(self, lane: Lane) -> None:
        """Those that waited for this replica are sent again, and those that wait for any."""
        self._resume_home(lane.replica)
        self._gather()
        self._invite()

    def _resume_home(self, home: int) -> None:
        mine = [stream for stream in self._streams.values() if stream.live and stream.home == home]
        for streams in self._groups(mine):
            self._resume_among(None if home == NOWHERE else [home], streams)
        if mine:
            self._counters.add(FrontCounter.RESUMED, len(mine))
            log.warning("resuming %d requests", len(mine))

    def _gather(self) -> None:
        """Who waits for any replica waits until all are there that come soon: the first would get everybody."""
        if all(lane.up or lane.away for lane in self._lanes):
            self._scatter()
        elif self._gathering is None and any(stream.home == NOWHERE for stream in self._streams.values()):
            self._gathering = asyncio.get_running_loop().call_later(_GATHER_S, self._scatter)

    def _scatter(self) -> None:
        gathering, self._gathering = self._gathering, None
        if gathering is not None:
            gathering.cancel()
        self._resume_home(NOWHERE)

    def on_away(self, replica: int) -> None:
        """It does not come back soon: its suspects go on elsewhere, one at a time."""
        self._lanes[replica].away = True
        if self._gathering is not None:
            self._gather()
        self._invite()

    @property
    def reserved(self) -> Collection[int]:
        """Where nobody is sent while there are others: replicas that leave, and those where a suspect runs alone."""
        leaving, trials = self._lanes.leaving, self._suspects.homes() if self._suspects else frozenset[int]()
        if not leaving and not trials:
            return ()
        for avoided in ({*leaving, *trials}, leaving, trials):
            if any(lane.up and lane.replica not in avoided for lane in self._lanes):
                return avoided
        return ()

    def on_verdict(self, lane: Lane, verdict: Verdict) -> None:
        """After all that its rings held has been read."""
        mine = [stream for stream in self._streams.values() if stream.live and stream.home == lane.replica]
        named = self._named(mine, lane, verdict)
        for stream in self._suspects.name(named, alone=verdict.culprit != PREPROCESS.name):
            log.error("request %016x made a replica fail twice: it is refused", stream.request)
            stream.fail(conviction())
        moving = [stream for stream in mine if stream.live and stream not in self._suspects]
        for stream in moving:
            stream.home = NOWHERE
        for streams in self._groups(moving):
            self._resume_among(None, streams, moved=True)
        if mine:
            kept = sum(stream.live and stream in self._suspects for stream in mine)
            self._counters.add(FrontCounter.RESUMED, len(moving))
            text = "replica %d: %d requests go on elsewhere, %d that may have made it fail wait for it"
            log.warning(text, lane.replica, len(moving), kept)
        self._invite()

    @staticmethod
    def _named(mine: Iterable[TokenStream], lane: Lane, verdict: Verdict) -> list[TokenStream]:
        """Where nobody knows who had a row: those that were accepted in that generation. What still waited to be read
        there has done nothing."""
        if verdict.suspects is None:
            return [stream for stream in mine if stream.accepted_in == (lane.replica, verdict.generation)]
        suspects = frozenset(verdict.suspects)
        return [stream for stream in mine if shares(stream, suspects)]

    # ---- suspects ---------------------------------------------------------------------------------------------

    def look_after(self) -> None:
        """Tokens have come, or a request has ended: perhaps of the suspect that is a guest elsewhere."""
        if self._suspects:
            self._invite()

    def _invite(self) -> None:
        """The next suspect whose replica stays away goes to the replica that has the least to do, and runs alone
        there: rows of others are given back until it is cleared."""
        away = {lane.replica for lane in self._lanes if lane.away and not lane.up}
        if not away:
            return
        reserved = self.reserved
        able = [lane.replica for lane in self._lanes if lane.up and lane.replica not in reserved]
        if not able or (guest := self._suspects.next_guest(away)) is None:
            return
        loads = Counter(stream.home for stream in self._streams.values())
        host = min(able, key=lambda replica: loads[replica])
        self._suspects.invite(guest)
        log.warning("request %016x goes on at replica %d, alone first", guest.request, host)
        self._counters.add(FrontCounter.RESUMED)
        self._resume_among([host], [guest], moved=True)

    # ---- sending again ----------------------------------------------------------------------------------------

    def _groups(self, streams: Iterable[TokenStream]) -> Iterable[list[TokenStream]]:
        """That can be sent as one: they share a prompt, a home, and being suspect; in the order of their firsts."""
        groups = defaultdict[tuple[int, int, bool], list[TokenStream]](list)
        for stream in streams:
            groups[id(stream.submit), stream.home, stream in self._suspects].append(stream)
        return groups.values()

    def _resume_among(
        self, replicas: Collection[int] | None, streams: Sequence[TokenStream], *, moved: bool = False
    ) -> None:
        """Wherever the router says (None: that is open to all). If they can't be computed at these, they go anywhere;
        if nowhere, they wait."""
        without: Collection[int] = ()
        if replicas is None:
            without = self.reserved
            replicas = self._lanes.preferred(without)
        output = max(len(stream.tokens) for stream in streams)
        submit = streams[0].submit
        choice = self._lanes.choose(submit, replicas, without=without, output=output)
        if choice is None and replicas is not None:
            choice = self._lanes.choose(submit, without=self.reserved, output=output)
        if choice is None:
            for stream in streams:
                stream.home = NOWHERE
        else:
            self.resume(streams, self._lanes.settle(streams, choice), moved=moved)

    def resume(self, streams: Sequence[TokenStream], lane: Lane, *, moved: bool = False) -> None:
        """Streams of one prompt, as soon as there is room, after those that arrived before."""
        client = lane.client
        if client is None:
            return  # `on_attached` sends them

        def late() -> bytes | None:
            live = [stream for stream in streams if stream.live]
            if not live:
                return None
            choices, suspect = [stream.resumption() for stream in live], live[0] in self._suspects
            record = live[0].submit.with_choices(choices, moved=moved, suspect=suspect).pack()
            if len(record) <= client.max_record:
                return record
            if len(live) == 1:
                live[0].fail(ApiError(500, "the request is too large to be resumed after a restart", kind=SERVER))
            else:
                for stream in live:
                    self.resume([stream], lane, moved=moved)
            return None

        client.send_later(late, resumes=True)


def shares(stream: TokenStream, requests: Collection[int]) -> bool:
    """One of these requests is the stream's own, or the first of those that were sent with its prompt."""
    return stream.request in requests or stream.submit.request in requests
