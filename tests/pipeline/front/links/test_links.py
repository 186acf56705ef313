"""A router's front and a node's in one process: real rings behind the node, TLS on loopback between them."""

from __future__ import annotations

import asyncio
import math
import os
import select
import socket

import msgspec
import pytest

from model.sampling import SamplingParams
from pipeline.front.delivery.backend import Backend
from pipeline.front.delivery.lane import NOWHERE
from pipeline.front.delivery.routing.policies import make_router
from pipeline.front.http.errors import ApiError
from pipeline.front.http.responses import Outbox
from pipeline.front.links.links import Links
from pipeline.front.metrics.trace import Spans
from pipeline.front.settings import FrontSettings, LinkSettings
from pipeline.launcher.certificates import make_certificates
from pipeline.link.frames import Kind, batches
from pipeline.runtime.generations import Verdict
from pipeline.stats import Counters, FrontCounter, Histograms, RequestHistogram, RingEnds, StatsPage, StatsReader
from pipeline.wire.delta import Delta, FinishReason, unpack_delta
from pipeline.wire.request import Accepted, Cancel, Choice, Encode, Owner, Request, Started, Submit, unpack_message
from pipeline.wire.topology import Topology
from tests.pipeline.front.far import FarRings

FIELDS = {"vocab_size": 100, "max_length": 64, "max_prompt": 60, "max_rows": 4, "max_queue": 4000}
FACTS = {"pipeline.model_name": "tiny"}
NODES = 2


class Far(FarRings):
    async def came(self, kind=Submit):
        """The next message, of this kind."""
        async with asyncio.timeout(10):
            while (message := self.next_message()) is None:
                await asyncio.sleep(0.001)
        assert isinstance(message, kind), message
        return message

    def bring(self, choice, index, reason=FinishReason.NONE):
        self.deltas.write(delta(choice, index, reason))


def delta(choice, index, reason=FinishReason.NONE):
    return Delta(choice.request, choice.attempt, index, 10 + index, math.nan, reason, "x").pack()


class Node:
    """Its launcher is the test."""

    def __init__(self, backend, settings):
        self.backend, self.generation, self.fars = backend, 0, {}
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.every = Links(settings, backend, self, backend._counters, [self.listener])
        self.links = self.every._to_routers
        self.serving = asyncio.create_task(self.every.run())
        for lane in backend.lanes:
            self.attach(lane.replica)

    @property
    def far(self):
        """Of the first replica."""
        return self.fars[0]

    def attach(self, replica=0, weights=""):
        self.generation += 1
        self.fars[replica] = far = Far()
        self.backend.attach(far.handles, replica, self.generation, weights)

    async def end(self, stage="", suspects=(), replica=0):
        """Its rings end, and the front leaves them; then there is a verdict."""
        lane = self.backend.lanes[replica]
        for ring in self.fars[replica].rings.values():
            ring.revoke()
        await lane.closed.wait()
        await self.backend.detach(replica)
        self.fars.pop(replica).close()
        self.backend.on_verdict(Verdict(replica, lane.generation, stage, suspects))

    async def close(self):
        self.every.drain()
        self.serving.cancel()
        await self.backend.close()
        for far in self.fars.values():
            far.close()
        self.listener.close()


class Router:
    """Its launcher is the test, too."""

    def __init__(self, backend, settings):
        self.backend, self.ups, self.said = backend, 0, []
        self.every = Links(settings, backend, self, backend._counters, [])
        self.links = self.every.to_nodes
        self.running = asyncio.create_task(self.every.run())

    def linked(self, lanes):
        self.ups = lanes

    def nodes(self, nodes):
        self.said.append(nodes)

    async def wait_up(self, lanes):
        async with asyncio.timeout(10):
            while self.ups != lanes:
                await asyncio.sleep(0.001)

    def submit(self, *prompts):
        """A stream for each prompt."""
        each = [
            Submit.of([Choice(self.backend.new_id(), 7)], prompt, Request(SamplingParams(), 20)) for prompt in prompts
        ]
        return self.backend.submit(each)

    async def close(self):
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        await self.backend.close()


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder, ["127.0.0.1"])
    return folder


@pytest.fixture
def run(certificates):
    def run(talk, nodes=NODES, replicas=1, routers=1, most=None, linked=None, drain_s=30.0, **link):
        pages = []

        def backend(replicas):
            pages.append(page := StatsPage.create(Topology(replicas=replicas)))
            page.unlink()
            chosen = FrontSettings(model_name="tiny", replicas=replicas, drain_timeout_s=drain_s, **FIELDS)
            outbox = Outbox(Histograms(page, RequestHistogram), Spans())
            counters, ends = Counters(page, "front"), RingEnds(page, "front")
            return Backend(chosen, counters, StatsReader(page), outbox, ends, make_router(chosen))

        def settings(role, **more):
            files = {"ca": "ca.pem", "certificate": f"{role}.pem", "key": f"{role}.key"}
            paths = {key: certificates / name for key, name in files.items()}
            return LinkSettings(
                **{"facts": FACTS, "heartbeat_s": 5.0, "longest_request": 1 << 15, **paths, **link, **more}
            )

        async def main():
            far = [Node(backend(replicas), settings("node")) for _ in range(nodes)]
            places, first = most or nodes, tuple(node.address for node in far)[: linked or most]
            told = settings("router", nodes=first, max_nodes=places)
            near = [Router(backend(places * replicas), told) for _ in range(routers)]
            try:
                async with asyncio.timeout(30):
                    for router in near:
                        await router.wait_up(len(first) * replicas)
                    await talk(*near, *far)
            finally:
                for router in near:
                    await router.close()
                for node in far:
                    await node.close()

        asyncio.run(main())
        for page in pages:
            page.close()

    return run


def test_a_router_knows_the_weights_of_each_generation(run):
    async def talk(router, node):
        for weights in ("old", "new"):
            await node.end()
            node.attach(weights=weights)
            await until(lambda: router.backend.lanes.weights() == [(0, weights)])  # noqa: B023
        (stream,) = router.submit("a")
        assert stream.weights == [(0, "new")]

    run(talk, nodes=1)


def test_a_router_knows_where_requests_can_be_deterministic(run):
    async def talk(router, node):
        lane = router.backend.lanes[0]
        for able in (False, True):
            node.backend._settings.not_deterministic = "" if able else "it can't"
            await node.end()
            node.attach()
            await until(lambda: lane.up and lane.generation > able + 1)  # noqa: B023
            assert lane.client.deterministic is able

    run(talk, nodes=1)


def test_a_request_and_its_tokens(run):
    async def talk(router, node):
        (stream,) = router.submit("a")
        submit = await node.far.came()
        assert (submit.text, submit.choices) == ("a", stream.submit.choices)
        assert submit.arrival_ns  # by the clock of its own machine
        node.far.replies.write(Accepted(stream.request, 0, 5).pack())
        node.far.replies.write(Started(stream.request, 0, 9, 3).pack())
        for index in (1, 2):
            node.far.bring(stream, index)
        await until(lambda: len(stream.tokens) == 2)
        assert [unpack_delta(record).token_id for record in stream.take()] == [11, 12]
        assert (stream.prompt_tokens, stream.cached_tokens, stream.waited_ns) == (5, 3, 9)
        assert node.links.figures.requests == 1
        node.far.bring(stream, 3, FinishReason.EOS)
        await until(lambda: len(stream.tokens) == 3)
        assert node.links.figures.requests == 0
        router.backend.finish(stream, cancel=False)

    run(talk, nodes=1)


def test_a_request_that_is_about_to_come_wakes_preprocess_of_the_only_node_while_it_has_none(run):
    def woken(node):
        return select.select([node.far.rings["requests"].data_fd()], [], [], 0)[0] != []

    async def talk(router, node):
        router.backend.announce()
        await until(lambda: woken(node))
        os.eventfd_read(node.far.rings["requests"].data_fd())
        (stream,) = router.submit("a")
        await node.far.came()
        before = node.links.figures.received
        router.backend.announce()  # it has one, and says nothing
        (link,) = router.links.links
        link._connection.send(Kind.COMING)
        await until(lambda: node.links.figures.received > before)
        assert not woken(node)
        router.backend.finish(stream, cancel=False)

    run(talk, nodes=1)


def test_nobody_is_woken_where_a_request_may_go_to_several(run):
    async def talk(router, *nodes):
        assert router.backend.lanes.only is None
        router.backend.announce()
        await nodes[0].end()
        await until(lambda: router.backend.lanes.only is router.backend.lanes[1])

    run(talk)


def test_routers_hear_of_each_others_requests(run):
    def others(router):
        return router.backend.lanes._router._loads.others.tolist()

    async def talk(first, second, *nodes):
        streams = first.submit("a", "b", "c")
        assert [stream.home for stream in streams] == [0, 1, 0]
        await until(lambda: others(second) == [2, 1])
        (late,) = second.submit("d")
        assert late.home == 1  # where fewer are; of its own there are none
        await until(lambda: others(first) == [0, 1])
        for stream in streams:
            first.backend.finish(stream, cancel=True)
        await until(lambda: others(second) == [0, 0])
        await second.close()
        await until(lambda: others(first) == [0, 0])

    run(talk, routers=2)


def test_a_load_that_can_not_be_breaks_the_link(run):
    async def talk(router, node):
        (link,) = node.links._every
        link.connection.send(Kind.LOAD, msgspec.msgpack.encode([-1]), 0, node.backend.lanes[0].generation)
        await router.wait_up(0)
        await router.wait_up(1)

    run(talk, nodes=1)


def test_both_sides_are_in_metrics(run):
    async def talk(router, *nodes):
        assert router.backend._counters.get(FrontCounter.READY) == 1
        names = {family.name for each in (router, *nodes) for family in each.every.metrics()}
        assert {"ringserve_link_lanes_up", "ringserve_router_links"} <= names

    run(talk)


def test_a_client_that_is_gone_is_cancelled_there(run):
    async def talk(router, node):
        (stream,) = router.submit("a")
        await node.far.came()
        router.backend.finish(stream, cancel=True)
        assert await node.far.came(Cancel) == Cancel(stream.request)
        assert node.links.figures.requests == 0

    run(talk, nodes=1)


def test_what_was_at_a_node_whose_link_is_gone_goes_on_elsewhere_and_is_cancelled_there(run):
    async def talk(router, *nodes):
        streams = router.submit("a", "b")
        for node in nodes:
            await node.far.came()
        home = nodes[streams[0].home]
        for index in (1, 2, 3):
            home.far.bring(streams[0], index)
        await until(lambda: len(streams[0].tokens) == 3)
        home.serving.cancel()  # it can't link again
        router.links.links[streams[0].home]._connection.abort("the network is gone")
        other = nodes[1 - streams[0].home]
        (choice,) = (await other.far.came()).choices
        assert (choice.request, choice.attempt, len(choice.output)) == (streams[0].request, 1, 12)
        assert await home.far.came(Cancel) == Cancel(streams[0].request)
        home.far.bring(streams[0], 4)  # late, and nobody's
        other.far.bring(choice, 4)
        await until(lambda: len(streams[0].tokens) == 4)
        assert [unpack_delta(record).token_id for record in streams[0].take()] == [11, 12, 13, 14]

    run(talk)


def test_a_link_that_is_made_again_takes_them_back(run):
    """With one node they wait for it, and go there with the next attempt."""

    async def talk(router, node):
        (stream,) = router.submit("a")
        first = (await node.far.came()).choices[0]
        node.far.bring(first, 1)
        await until(lambda: len(stream.tokens) == 1)
        router.links.links[0]._connection.abort("the network is gone")
        await router.wait_up(0)
        (waits,) = router.submit("b")
        assert waits.home == NOWHERE
        await node.far.came(Cancel)
        again = [(await node.far.came()).choices[0] for _ in range(2)]
        assert {(one.request, one.attempt) for one in again} == {(stream.request, 1), (waits.request, 1)}
        node.far.bring(first, 2)  # of the attempt before
        node.far.bring(again[0], 2)
        await until(lambda: len(stream.tokens) == 2)
        assert [link.links for link in router.links.links] == [2]

    run(talk, nodes=1)


def test_a_replica_that_ends_takes_nobody_along_but_who_is_to_blame(run):
    """The verdict of the node's launcher counts at the router: the others go on elsewhere, the suspect waits."""

    async def talk(router, *nodes):
        streams = router.submit(*"abcd")
        mine = [stream for stream in streams if stream.home == 0]
        for node in nodes:
            for _ in range(2):
                await node.far.came()
        suspect, other = mine
        await nodes[0].end("inference", (suspect.request, 77))
        assert (await nodes[1].far.came()).choices[0].request == other.request
        assert (suspect.home, other.home) == (0, 1)
        await router.wait_up(1)
        nodes[0].attach()
        again = await nodes[0].far.came()
        assert (again.suspect, again.choices[0].request) == (True, suspect.request)

    run(talk)


def test_there_is_room_for_so_much_and_no_more(run):
    """As where rings are full: a single request is refused, those of one list wait, and all arrive."""

    async def talk(router, node):
        text = "x" * 4000
        many = router.submit(*[text] * 40)  # more than the ring and the room hold
        with pytest.raises(ApiError, match="too many requests at once"):
            router.submit(text)
        came = [(await node.far.came()).request for _ in many]
        assert came == [stream.request for stream in many]
        router.submit(text)
        await node.far.came()

    run(talk, nodes=1)


def test_tokens_of_several_steps_that_came_together_are_passed_on_together(run):
    """And count before what is said behind them."""

    async def talk(router, node):
        (stream,) = router.submit("a")
        choice = (await node.far.came()).choices[0]
        passed = []
        stream.wake(
            asyncio.get_running_loop().create_future(), lambda records, _: passed.append(len(records)) or True
        )
        for index in (1, 2):  # each is a frame, and a write
            node.backend._on_deltas([delta(choice, index)])
        (link,) = node.links._every
        link.lane_down(node.backend.lanes[0])
        await router.wait_up(0)
        assert (passed, len(stream.tokens)) == ([2], 2)

    run(talk, nodes=1)


def test_what_was_taken_is_said_with_the_reply_or_once_it_is_much(run):
    async def talk(router, node):
        client = router.backend.lanes[0].client
        (small,) = router.submit("a")
        await node.far.came()
        await asyncio.sleep(0.05)
        assert 0 < client._under_way < 1000
        node.far.replies.write(Accepted(small.request, 0, 5).pack())
        await until(lambda: client._under_way == 0)
        router.submit("x" * 20_000)
        await until(lambda: client._under_way == 0)

    run(talk, nodes=1)


def test_texts_are_encoded_over_a_link(run):
    from pipeline.wire.request import Encoded, GoOn

    class Connection:
        lost, on_lost = False, set()

    class Exchange:
        body_bytes, connection = 10, Connection()

    async def talk(router, node):
        asked = Encode(router.backend.new_id(), 0, "a b", 10)
        answer = asyncio.create_task(router.backend.encode(asked, Exchange()))
        assert (await node.far.came(Encode)).text == "a b"
        node.far.replies.write(Encoded(asked.request, 0, 2, b"\1\0\0\0", False).pack())
        assert await node.far.came(GoOn) == GoOn(asked.request)
        node.far.replies.write(Encoded(asked.request, 0, 2, b"\2\0\0\0", True).pack())
        assert await answer == (2, b"\1\0\0\0\2\0\0\0")
        assert node.links.figures.requests == 0

    run(talk, nodes=1)


def test_a_node_that_shuts_down_says_so(run, caplog):
    async def talk(router, *nodes):
        (stream,) = router.submit("a")
        await nodes[stream.home].far.came()
        first = stream.home
        nodes[first].links.close("the node is shutting down")
        assert (await nodes[1 - first].far.came()).choices[0].request == stream.request
        assert await nodes[first].far.came(Cancel) == Cancel(stream.request)

    run(talk)
    assert "the node says: the node is shutting down" in caplog.text


def test_a_record_that_can_not_be_read_breaks_the_link_and_no_answer(run):
    async def talk(router, node):
        (stream,) = router.submit("a")
        await node.far.came()
        (link,) = node.links._links.values()
        link._ways[0].deltas.append(b"\xff" * 5)
        link._write()
        await node.far.came(Cancel)
        assert (await node.far.came()).choices[0].attempt == 1
        assert stream.live

    run(talk, nodes=1)


def test_nodes_with_several_replicas(run):
    """Each is a lane of its own: one that ends leaves the others of its node alone."""

    async def talk(router, *nodes):
        streams = router.submit(*"abcd")
        assert sorted(stream.home for stream in streams) == [0, 1, 2, 3]
        fars = [far for node in nodes for _, far in sorted(node.fars.items())]
        for stream in streams:
            (choice,) = (await fars[stream.home].came()).choices
            assert choice.request == stream.request
            fars[stream.home].bring(choice, 1)
        await until(lambda: all(len(stream.tokens) == 1 for stream in streams))
        lost = next(stream for stream in streams if stream.home == 3)
        await nodes[1].end(replica=1)
        await until(lambda: lost.home != 3)
        assert (await fars[lost.home].came()).choices[0].request == lost.request
        assert sorted(stream.home for stream in streams if stream is not lost) == [0, 1, 2]
        await router.wait_up(3)
        nodes[1].attach(1)
        await router.wait_up(4)

    run(talk, replicas=2)


def test_a_flood_that_ends_with_its_link_leaves_nothing_behind(run):
    """What was not looked at yet is not sent behind the cancellations."""

    async def talk(router, node):
        (link,) = node.links._links.values()
        number = router.backend.number << 32
        flood = [
            Submit.of([Choice(number + 1000 + n, 7)], "x", Request(SamplingParams(), 20)).pack() for n in range(500)
        ]
        for payload in batches(flood):
            router.links.links[0]._connection.send(Kind.REQUESTS, payload, 0, node.generation)
        await until(lambda: node.links.guests)
        assert link._waiting
        link.connection.abort("the network is gone")
        await router.wait_up(0)
        await router.wait_up(1)
        begun, ended = set(), set()
        while (record := node.far.requests.try_read()) is not None:
            with record:
                message = unpack_message(bytes(record))
            (begun if isinstance(message, Submit) else ended).add(message.request)
        assert begun == ended
        assert 0 < len(begun) < 500
        assert node.links.figures.requests == 0

    run(talk, nodes=1)


def test_a_router_that_sends_more_than_there_is_room_for(run, caplog):
    """It is told why, its link ends, and what it had there is cancelled."""

    async def talk(router, node):
        number = (router.backend.number << 32) + 1000
        record = Submit.of([Choice(number, 7)], "x" * 20_000, Request(SamplingParams(), 20)).pack()
        for _ in range(12):  # nobody reads them: the ring is full with the third
            router.links.links[0]._connection.send(Kind.REQUESTS, batches([record])[0], 0, node.generation)
        await router.wait_up(0)
        for _ in range(3):
            assert (await node.far.came()).request == number
        while await node.far.came((Submit, Cancel)) != Cancel(number):
            pass
        await router.wait_up(1)

    run(talk, nodes=1)
    assert "the node says: more than" in caplog.text
    assert "bytes of requests are under way: that was the room told; 1 requests are cancelled" in caplog.text


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"params": b"\xc1"}, "a request's parameters can't be read"),
        ({"text": None, "token_ids": b"12345"}, "a prompt's token ids are 5 bytes, no multiple of 4"),
        ({"owner": Owner(1, 0.0)}, "a request's weight is 0.0; it must be above 0"),
        ({"owner": Owner(1, math.nan)}, "a request's weight is nan; it must be above 0"),
    ],
)
def test_what_no_front_sends_does_not_get_into_a_ring(run, caplog, change, why):
    async def talk(router, node):
        number = (router.backend.number << 32) + 1000
        submit = Submit.of([Choice(number, 7)], "x", Request(SamplingParams(), 20))
        record = msgspec.structs.replace(submit, **change).pack()
        router.links.links[0]._connection.send(Kind.REQUESTS, batches([record])[0], 0, node.generation)
        await router.wait_up(0)
        await router.wait_up(1)
        assert await node.far.came(Cancel) == Cancel(number)

    run(talk, nodes=1)
    assert f"the node says: {why}" in caplog.text


@pytest.mark.parametrize("address", ["a..b:1", "127.0.0.1:1", "no-such-host.invalid:1"])
def test_a_node_that_is_not_there_is_looked_for(run, caplog, address):
    async def talk(router, *nodes):
        (stream,) = router.submit("a")
        await nodes[0].far.came()
        router.links.links[0].address = address
        router.links.links[0]._connection.abort("the network is gone")
        await router.wait_up(0)
        await until(lambda: caplog.text.count(address) == 1)
        assert stream.live
        router.links.links[0].address = nodes[0].address
        await router.wait_up(1)

    run(talk, nodes=1)


# ---- nodes that come and go --------------------------------------------------------------------------------------


def described(router):
    links, requests = router.links, router.links.requests()
    return [(link.address, link.leaving, link.lanes_up, requests[link.address]) for link in links.links]


def test_a_node_that_comes_gets_requests_and_one_that_leaves_gets_none(run):
    """Its streams end there, and then the link does."""

    async def talk(router, first, second):
        (old,) = router.submit("a")
        choice = (await first.far.came()).choices[0]
        router.links.put([first.address, second.address])
        assert router.said == [[first.address, second.address]]  # for the front that comes after this one
        await router.wait_up(2)
        router.links.put([second.address])
        assert described(router)[0] == (first.address, True, 1, 1)
        new = router.submit("a", "b", "c")  # the first has "a" in its cache
        assert {(await second.far.came()).request for _ in new} == {stream.request for stream in new}
        first.far.bring(choice, 1)
        first.far.bring(choice, 2, FinishReason.EOS)
        await until(lambda: len(old.tokens) == 2)
        router.backend.finish(old, cancel=False)
        await until(lambda: described(router) == [(second.address, False, 1, 3)])
        await until(lambda: not first.links.figures.links)
        assert {stream.attempt for stream in new} == {0}

    run(talk, linked=1)


def test_what_does_not_end_in_time_goes_on_elsewhere(run):
    async def talk(router, *nodes):
        (stream,) = router.submit("a")
        at = stream.home
        choice = (await nodes[at].far.came()).choices[0]
        nodes[at].far.bring(choice, 1)
        await until(lambda: len(stream.tokens) == 1)
        router.links.put([nodes[1 - at].address])
        (again,) = (await nodes[1 - at].far.came()).choices
        assert (again.request, again.attempt, len(again.output)) == (stream.request, 1, 4)
        assert await nodes[at].far.came(Cancel) == Cancel(stream.request)

    run(talk, drain_s=0.1)


def test_a_node_that_is_to_stay_after_all_stays(run):
    async def talk(router, *nodes):
        every = [node.address for node in nodes]
        (stream,) = router.submit("a")
        at = stream.home
        await nodes[at].far.came()
        for _ in range(3):
            router.links.put([every[1 - at]])
            await asyncio.sleep(0)
            router.links.put(every)
        await asyncio.sleep(0.2)
        assert [leaving for _, leaving, _, _ in described(router)] == [False, False]
        assert [link.links for link in router.links.links] == [1, 1]

    run(talk)


def test_a_node_waits_for_the_place_of_one_that_leaves(run):
    """With one place: streams go on at the node that has it next, and so does what nobody could compute meanwhile."""

    async def talk(router, first, second):
        (stream,) = router.submit("a")
        await first.far.came()
        router.links.put([second.address])
        assert [address for address, *_ in described(router)] == [first.address]
        (late,) = router.submit("b")  # while there is no other, the one that leaves does it
        await first.far.came()
        came = [(await second.far.came()).choices[0] for _ in range(2)]
        assert {(one.request, one.attempt) for one in came} == {(stream.request, 1), (late.request, 1)}
        assert [address for address, *_ in described(router)] == [second.address]

    run(talk, most=1, drain_s=0.1)


def test_without_nodes_requests_wait_for_one_that_comes(run):
    async def talk(router, *nodes):
        router.links.put([])
        await router.wait_up(0)
        (stream,) = router.submit("a")
        assert stream.home == NOWHERE
        router.links.put([nodes[1].address])
        assert (await nodes[1].far.came()).request == stream.request

    run(talk, drain_s=0.1)


def test_a_suspect_does_not_wait_for_a_node_that_has_left(run):
    async def talk(router, *nodes):
        (stream,) = router.submit("a")
        at = stream.home
        await nodes[at].far.came()
        await nodes[at].end("inference", (stream.request,))
        await router.wait_up(1)
        router.links.put([nodes[1 - at].address])
        again = await nodes[1 - at].far.came()
        assert (again.request, again.suspect) == (stream.request, True)

    run(talk, drain_s=0.1)
