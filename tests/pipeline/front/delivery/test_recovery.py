"""Requests whose replica is lost, over real rings: two or three replicas, whose far ends are the test's."""

from __future__ import annotations

import asyncio
import itertools
import math
from array import array
from types import SimpleNamespace

import pytest

from model.sampling import SamplingParams
from pipeline.front.delivery import recovery
from pipeline.front.delivery.backend import Backend
from pipeline.front.delivery.lane import NOWHERE
from pipeline.front.delivery.policies import make_router
from pipeline.front.delivery.ring_client import RingClient
from pipeline.front.delivery.weights import WeightsControl
from pipeline.front.http.errors import ApiError
from pipeline.front.http.responses import Outbox
from pipeline.front.metrics.trace import Spans
from pipeline.front.settings import FrontSettings
from pipeline.runtime.generations import Verdict
from pipeline.stats import Counters, FrontCounter, Histograms, RequestHistogram, RingEnds, StatsPage, StatsReader
from pipeline.wire.delta import Delta, FinishReason, unpack_delta
from pipeline.wire.request import Accepted, Cancel, Choice, Encode, Request, Submit
from pipeline.wire.topology import Topology
from tests.pipeline.front.far import FarRings

REPLICAS = 3
FIELDS = {"vocab_size": 100, "max_length": 64, "max_prompt": 60, "max_rows": 4, "max_queue": 40}


class Far(FarRings):
    def bring(self, request, attempt, index, token=7, reason=FinishReason.NONE):
        self.deltas.write(Delta(request, attempt, index, token, math.nan, reason, "x").pack())


class Front:
    """A backend with rings of all replicas, whose launcher is the test."""

    def __init__(self, backend):
        self.backend, self.far, self.numbers = backend, {}, dict.fromkeys(range(REPLICAS), 0)
        self.said = {}
        WeightsControl(SimpleNamespace(on=self.said.__setitem__), backend)
        for replica in range(REPLICAS):
            self.attach(replica)

    def attach(self, replica, weights="old", *, deterministic=True):
        self.numbers[replica] += 1
        self.far[replica] = far = Far(replica)

        def connect(*told):
            client = RingClient(far.handles, *told)
            client.deterministic = deterministic
            return client

        self.backend.attach_client(connect, replica, self.numbers[replica], weights)

    async def end(self, replica, verdict=True, stage="", suspects=()):
        """Its rings end, and the front leaves them. The verdict may come before that."""
        if verdict:
            self.verdict(replica, stage, suspects)
        for ring in self.far[replica].rings.values():
            ring.revoke()
        await self.backend.lanes[replica].closed.wait()
        await self.backend.detach(replica)
        self.far.pop(replica).close()

    def verdict(self, replica, stage="", suspects=()):
        self.backend.on_verdict(Verdict(replica, self.numbers[replica], stage, suspects))

    def report(self, state):
        """What the launcher says of a change of weights to `new`."""
        self.said["weights"]({"state": state, "change": {"call": 0, "weights": "new"}})

    def submit(self, *prompts, **more):
        """A stream for each prompt."""
        request = Request(SamplingParams(), 20, **more)
        messages = [Submit.of([Choice(self.backend.new_id(), 7)], prompt, request) for prompt in prompts]
        return self.backend.submit(messages)

    async def came(self):
        """Everything that has been sent, by replica."""
        for _ in range(20):
            await asyncio.sleep(0)
        found = {replica: [*iter(far.next_message, None)] for replica, far in self.far.items()}
        return {replica: messages for replica, messages in found.items() if messages}

    async def sent(self):
        """Requests that have been sent, by replica: (request, attempt, tokens, moved, suspect)."""
        return {
            replica: [
                (choice.request, choice.attempt, len(choice.output) // 4, message.moved, message.suspect)
                for message in messages
                for choice in message.choices
            ]
            for replica, messages in (await self.came()).items()
        }

    async def accepted(self, *streams):
        """Let their replicas say so."""
        for stream in streams:
            self.far[stream.home].replies.write(Accepted(stream.request, stream.attempt, 5).pack())
        while not all(stream.accepted for stream in streams):
            await asyncio.sleep(0)

    async def tokens(self, stream, count):
        """Let its replica say so many."""
        known = len(stream.tokens)
        for index in range(known + 1, known + count + 1):
            self.far[stream.home].bring(stream.request, stream.attempt, index, 10 + index)
        while len(stream.tokens) < known + count:
            await asyncio.sleep(0)

    def close(self):
        for far in self.far.values():
            far.close()


@pytest.fixture
def page():
    page = StatsPage.create(Topology(replicas=REPLICAS))
    page.unlink()
    yield page
    page.close()


@pytest.fixture
def run(page):
    def run(talk, **settings):
        async def main():
            chosen = FrontSettings(model_name="tiny", replicas=REPLICAS, **(FIELDS | settings))
            outbox = Outbox(Histograms(page, RequestHistogram), Spans())
            counters = Counters(page, "front")
            ends = RingEnds(page, "front")
            backend = Backend(chosen, counters, StatsReader(page), outbox, ends, make_router(chosen))
            front = Front(backend)
            try:
                async with asyncio.timeout(30):
                    await talk(front)
            finally:
                await backend.close()
                front.close()

        asyncio.run(main())

    return run


def test_requests_are_spread_and_their_tokens_come_from_all(run):
    async def talk(front):
        streams = front.submit(*"abcdef")
        assert {replica: len(sent) for replica, sent in (await front.sent()).items()} == {0: 2, 1: 2, 2: 2}
        await front.accepted(*streams)
        for stream in streams:
            await front.tokens(stream, 2)
            assert [unpack_delta(record).token_id for record in stream.take()] == [11, 12]
        assert streams[0].prompt_tokens == 5

    run(talk)


def test_what_was_aboard_a_killed_replica_goes_on_elsewhere_at_once(run, page):
    """Behind the tokens that have come, those included that were still in the ring."""

    async def talk(front):
        streams = front.submit(*"abcdef")
        await front.sent()
        lost = [stream for stream in streams if stream.home == 1]
        for stream in streams:
            await front.tokens(stream, 2)
        front.far[1].bring(lost[0].request, 0, 3)
        await front.end(1)
        moved = await front.sent()
        assert 1 not in moved
        assert sorted(one for sent in moved.values() for one in sent) == [
            (lost[0].request, 1, 3, True, False),
            (lost[1].request, 1, 2, True, False),
        ]
        assert {len(sent) for sent in moved.values()} == {1}  # one each
        await front.tokens(lost[0], 1)
        assert array("i", [11, 12, 7, 14]) == lost[0].tokens
        front.attach(1)
        assert await front.sent() == {}
        (late,) = front.submit("g")
        assert {*await front.sent()} == {1}  # it has the least to do
        assert late.home == 1

    run(talk)
    assert Counters(page, "front").get(FrontCounter.RESUMED) == 2


def test_while_weights_are_changed_what_moves_prefers_the_new_ones(run):
    """So each text changes once, except what was where the change began; and nothing waits for them."""

    async def talk(front):
        streams = front.submit(*"abcdef")
        await front.sent()
        for stream in streams:
            await front.tokens(stream, 2)
        homes = {stream: stream.home for stream in streams}
        await front.end(0)
        assert {*await front.sent()} == {1, 2}  # nobody has other ones
        front.report("replacing")
        front.attach(0, "new")
        await front.end(1)
        assert {*await front.sent()} == {0}
        front.attach(1, "new")
        await front.end(2)
        assert {*await front.sent()} == {1}  # which has nothing to do yet
        for stream in streams:
            await front.tokens(stream, 1)
            twice = [(0, "old"), (2, "new")]
            assert stream.weights == twice, homes[stream]
        (late,) = front.submit("g")
        assert late.weights == [(0, "new")]

    run(talk)


async def with_new_weights_at_one(front):
    """Six streams, and the first replica has the weights that all are being given."""
    streams = front.submit(*"abcdef")
    await front.sent()
    front.report("replacing")
    await front.end(0)
    front.attach(0, "new")
    assert front.backend.lanes.preferred(()) == [0]
    return streams


def test_when_no_weights_are_being_changed_nothing_is_preferred(run):
    """A replica with others than before attracts nobody: it may be a node that was put into a used lane."""

    async def talk(front):
        streams = await with_new_weights_at_one(front)
        front.report("idle")  # rolled back, elsewhere
        assert front.backend.lanes.preferred(()) is None
        await front.end(1)
        front.attach(1, "another")
        assert front.backend.lanes.preferred(()) is None
        assert {stream.home for stream in streams} == {0, 2}

    run(talk)


def test_new_weights_are_preferred_while_there_is_a_row(run):
    async def talk(front):
        streams = await with_new_weights_at_one(front)
        front.backend.lanes.on_load(0, 2)
        await front.end(1)
        assert sum(stream.home == 0 for stream in streams) == 2  # of three: the other two of its four rows are taken
        assert front.backend.lanes.preferred(()) is None

    run(talk)


def test_what_is_deterministic_goes_where_it_can_be(run):
    async def talk(front):
        for replica in (0, 1):
            await front.end(replica)
            front.attach(replica, deterministic=False)
        first, *others = front.submit(*"abc", deterministic=True)
        assert {stream.home for stream in (first, *others)} == {2}
        assert {stream.home for stream in front.submit(*"de")} == {0, 1}
        await front.sent()
        await front.tokens(first, 2)
        await front.end(2)
        assert first.home == NOWHERE  # it has begun, and would be refused in mid-stream
        assert {stream.home for stream in others} <= {0, 1}  # these are refused by name
        assert all(stream.home in (0, 1) for stream in front.submit("f", deterministic=True))
        await front.sent()
        front.attach(2)
        assert await front.sent() == {2: [(first.request, 1, 2, False, False)]}

    run(talk)


def test_what_is_deterministic_does_not_wait_for_a_lane_that_can_not_any_more(run):
    """Another node has taken the place of the one that it waits for."""

    async def talk(front):
        streams = front.submit(*"abc", deterministic=True)
        await front.sent()
        for stream in streams:
            await front.tokens(stream, 1)
        (lost,) = (stream for stream in streams if stream.home == 0)
        await front.end(0, stage="inference", suspects=(lost.request,))
        front.attach(0, deterministic=False)
        ((home, sent),) = (await front.sent()).items()
        assert home in (1, 2)
        assert [one[0] for one in sent] == [lost.request]

    run(talk)


def test_nothing_moves_before_it_is_known_who_is_to_blame(run):
    async def talk(front):
        streams = front.submit(*"abc")
        await front.sent()
        (lost,) = (stream for stream in streams if stream.home == 2)
        await front.end(2, verdict=False)
        assert await front.sent() == {}
        front.backend.on_verdict(Verdict(2, 7))  # of another generation
        assert await front.sent() == {}
        front.verdict(2)
        assert [sent[0][0] for sent in (await front.sent()).values()] == [lost.request]

    run(talk)


def test_a_verdict_may_come_before_the_rings_that_it_is_of(run):
    """They have ended before the front has begun with them."""

    async def talk(front):
        (stream, *_) = front.submit(*"abc")
        await front.sent()
        home = stream.home
        await front.end(home, stage="inference", suspects=(stream.request,))
        front.backend.on_verdict(Verdict(home, 2))
        front.attach(home)
        await front.end(home, verdict=False)
        assert stream.home == home  # nobody blames it again, but it is still a suspect: it waits
        front.attach(home)
        assert await front.sent() == {home: [(stream.request, stream.attempt, 0, False, True)]}

    run(talk)


def test_suspects_wait_for_their_replica_and_others_do_not(run):
    async def talk(front):
        streams = front.submit(*"abcdef")
        await front.sent()
        suspect, other = (stream for stream in streams if stream.home == 0)
        await front.tokens(suspect, 4)
        await front.end(0, stage="inference", suspects=(suspect.request, 12345))
        assert [sent[0][0] for sent in (await front.sent()).values()] == [other.request]
        front.attach(0)
        assert await front.sent() == {0: [(suspect.request, 1, 4, False, True)]}
        front.submit("g", "h", "i")
        assert 0 not in await front.sent()  # a suspect runs alone there
        await front.tokens(suspect, 3)
        front.submit("j", "k")
        assert 0 in await front.sent()

    run(talk)


def test_if_their_replica_stays_away_suspects_go_on_elsewhere_one_at_a_time(run):
    async def talk(front):
        streams = front.submit(*"abcdef")
        await front.sent()
        first, second = (stream for stream in streams if stream.home == 0)
        await front.accepted(first, second)
        await front.end(0, stage="sampling", suspects=None)  # preprocess is gone, too: it may be any of them
        assert await front.sent() == {}
        front.backend.on_away(0)
        ((host, sent),) = (await front.sent()).items()
        assert sent == [(first.request, 1, 0, True, True)]
        await front.tokens(first, 2)
        assert await front.sent() == {}
        await front.tokens(first, 1)
        ((other, sent),) = (await front.sent()).items()
        assert sent == [(second.request, 1, 0, True, True)]
        assert 0 not in (host, other)
        front.backend.finish(second, cancel=True)
        assert await front.came() == {other: [Cancel(second.request)]}
        front.attach(0)
        assert await front.sent() == {}

    run(talk)


def test_where_nobody_knows_who_had_a_row_what_was_not_accepted_is_not_to_blame(run):
    async def talk(front):
        streams = front.submit(*"abcdef")
        await front.sent()
        accepted, unread = (stream for stream in streams if stream.home == 0)
        await front.accepted(accepted)
        await front.end(0, stage="inference", suspects=None)
        assert [sent[0][0] for sent in (await front.sent()).values()] == [unread.request]
        assert unread.home in (1, 2)
        front.attach(0)
        assert await front.sent() == {0: [(accepted.request, 1, 0, False, True)]}

    run(talk)


def test_a_suspect_is_not_to_blame_for_a_generation_that_has_not_accepted_it(run):
    async def talk(front):
        streams = front.submit(*"abc")
        await front.sent()
        (suspect,) = (stream for stream in streams if stream.home == 0)
        await front.accepted(suspect)
        for _ in range(2):
            await front.end(0, stage="inference", suspects=None)
            front.attach(0)
            assert [sent[0] for sent in (await front.sent())[0]] == [suspect.request]
        await front.accepted(suspect)
        assert suspect.live

    run(talk)


def test_a_suspect_that_makes_a_second_replica_fail_is_refused(run):
    async def talk(front):
        streams = front.submit(*"abcdef")
        await front.sent()
        poison, beside = (stream for stream in streams if stream.home == 0)
        await front.end(0, stage="inference", suspects=(poison.request, beside.request))
        front.backend.on_away(0)
        ((host, _),) = (await front.sent()).items()
        guests = [stream for stream in streams if stream.home == host and stream is not poison]
        assert poison.home == host
        await front.end(host, stage="inference", suspects=(poison.request,))
        with pytest.raises(ApiError, match="made a process of the server fail twice") as refused:
            poison.take()
        assert refused.value.status == 500
        sent = await front.sent()
        assert len(sent) == 1  # the last replica
        assert {one[0] for one in next(iter(sent.values()))} == {beside.request, *(one.request for one in guests)}
        assert [one[4] for one in next(iter(sent.values())) if one[0] == beside.request] == [True]
        assert all(stream.live for stream in streams if stream is not poison)

    run(talk)


def test_a_request_that_kills_preprocess_costs_two_replicas_at_most(run):
    """There is no quarantine for what it does with a prompt: whoever is in hand twice is refused."""

    async def talk(front):
        streams = front.submit(*"abc")
        await front.sent()
        (poison,) = (stream for stream in streams if stream.home == 1)
        await front.end(1, stage="preprocess", suspects=(poison.request,))
        front.attach(1)
        assert await front.sent() == {1: [(poison.request, 1, 0, False, True)]}
        await front.end(1, stage="preprocess", suspects=(poison.request, streams[0].request))
        assert not poison.live
        assert streams[0].live  # it has been elsewhere

    run(talk)


def test_while_no_replica_is_there_requests_wait_for_any(run):
    async def talk(front):
        (stream,) = front.submit("a")
        await front.sent()
        for replica in range(REPLICAS):
            await front.end(replica)
        (late,) = front.submit("b")
        assert late.home == stream.home == NOWHERE
        front.attach(2)
        assert not await front.sent()
        for replica in (0, 1):
            front.backend.on_away(replica)
        ((home, sent),) = (await front.sent()).items()
        assert (home, [one[0] for one in sent]) == (2, [stream.request, late.request])
        assert not any(moved for *_, moved, _ in sent)  # there is nobody whom they could hold up

    run(talk)


@pytest.mark.parametrize("absent", [0, 1])
def test_the_first_replica_that_comes_does_not_get_everybody(run, monkeypatch, absent):
    """Who waits for any waits for all of them, or a short time."""
    monkeypatch.setattr(recovery, "_GATHER_S", 0.01 if absent else 60)

    async def talk(front):
        for replica in range(REPLICAS):
            await front.end(replica)
        front.submit(*"abcdef")
        for replica in range(REPLICAS - absent):
            assert absent or not await front.sent()  # the time may not pass between two of them
            front.attach(replica)
        spread = await front.sent()
        while not spread:
            await asyncio.sleep(0.005)
            spread = await front.sent()
        assert [len(sent) for sent in spread.values()] == [6 // len(front.far)] * len(front.far)

    run(talk)


def test_a_cancellation_goes_where_the_request_is(run):
    async def talk(front):
        streams = front.submit(*"abc")
        await front.sent()
        (moved,) = (stream for stream in streams if stream.home == 0)
        await front.end(0)
        await front.sent()
        for stream in streams:
            front.backend.finish(stream, cancel=True)
        came = await front.came()
        assert {message.request: home for home, messages in came.items() for message in messages} == {
            stream.request: stream.home for stream in streams
        }
        assert moved.home != 0

    run(talk)


def test_a_replica_without_room_is_passed(run):
    async def talk(front):
        for _ in range(6):  # alike: the cost sends them to the same replica for as long as it can
            front.submit("x" * 30000)
        with pytest.raises(ApiError) as refused:
            front.submit("x" * 30000)
        assert refused.value.status == 429
        assert {home: len(sent) for home, sent in (await front.sent()).items()} == {0: 2, 1: 2, 2: 2}

    run(talk, max_prompt=60000)


class Asked:
    """An exchange, as far as `encode` looks at it."""

    body_bytes = 10

    class connection:  # noqa: N801
        lost = False
        on_lost = set()  # noqa: RUF012


def test_texts_are_encoded_by_any_replica_and_by_another_if_it_dies(run):
    async def talk(front):
        asking = [
            asyncio.create_task(front.backend.encode(Encode(number, 0, "text", 9), Asked()))
            for number in (91, 92, 93)
        ]
        came = await front.came()
        assert {home: len(sent) for home, sent in came.items()} == {0: 1, 1: 1, 2: 1}
        here, there = came[0][0].request, came[1][0].request
        await front.end(0)
        ((home, (again,)),) = (await front.came()).items()
        assert (again.request, again.attempt) == (here, 1)
        assert home != 0
        await front.end(1, stage="preprocess", suspects=(there,))
        front.attach(1)
        back = await front.came()
        assert (there, 1) in [(one.request, one.attempt) for one in back[1]]
        await front.end(1, stage="preprocess", suspects=(there,))
        with pytest.raises(ApiError, match="made a process of the server fail twice"):
            await asking[there - 91]
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    run(talk)


def test_a_text_that_is_encoded_has_no_row_and_is_not_to_blame_where_one_of_those_may_be(run):
    async def talk(front):
        asking = asyncio.create_task(front.backend.encode(Encode(91, 0, "text", 9), Asked()))
        homes = []
        for attempt in range(3):
            ((home, (sent,)),) = (await front.came()).items()
            assert sent.attempt == attempt
            homes.append(home)
            await front.end(home, stage="inference", suspects=None)
            front.attach(home)
        assert all(one != after for one, after in itertools.pairwise(homes))
        assert not asking.done()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    run(talk)
