"""What is said of a request over real rings: of the attempt that counts, and of the prompt before the first token."""

from __future__ import annotations

import asyncio
import math
import os
from array import array

import pytest

import ipc
from model.sampling import SamplingParams
from pipeline.front.delivery.backend import Backend
from pipeline.front.delivery.routing.policies import make_router
from pipeline.front.http.responses import Outbox
from pipeline.front.metrics.trace import Spans
from pipeline.front.settings import FrontRings, FrontSettings
from pipeline.stats import Counters, FrontCounter, Histograms, RequestHistogram, RingEnds, StatsReader
from pipeline.wire.delta import Delta, FinishReason, unpack_delta
from pipeline.wire.request import Accepted, Choice, Refused, Request, Started, Submit, unpack_message

SETTINGS = FrontSettings(model_name="tiny", vocab_size=100, max_length=64, max_prompt=60, max_rows=2, max_queue=4)


class FarEnds:
    """The rings of a generation, and what preprocess and sampling have of them."""

    def __init__(self):
        self.rings = {name: ipc.ByteRing.create(name, capacity=1 << 16) for name in ("requests", "replies", "deltas")}
        self._requests = self.rings["requests"].consumer()
        self._replies = self.rings["replies"].producer()
        self._deltas = self.rings["deltas"].producer()

    @property
    def handles(self):
        """Of descriptors that the front can take over: it is this process, too."""
        return FrontRings(**{name: self._doubled(ring.handle) for name, ring in self.rings.items()})

    @staticmethod
    def _doubled(handle):
        return ipc.RingHandle.from_text(",".join(str(os.dup(fd)) for fd in handle.fds))

    async def request(self):
        while (record := self._requests.try_read()) is None:
            await asyncio.sleep(0)
        with record:
            return unpack_message(bytes(record))

    def say(self, *replies):
        for reply in replies:
            self._replies.write(reply.pack())

    def bring(self, attempt, index, token, reason=FinishReason.NONE):
        self._deltas.write(Delta(1, attempt, index, token, math.nan, reason, "x").pack())

    def end(self):
        for ring in self.rings.values():
            ring.revoke()

    def close(self):
        for ring in self.rings.values():
            ring.__exit__()


@pytest.fixture
def counters(page):
    return Counters(page, "front")


@pytest.fixture
def run(page, counters):
    """Runs a coroutine with a backend and the far ends of two generations."""

    def run(talk):
        far = [FarEnds(), FarEnds()]

        async def main():
            outbox = Outbox(Histograms(page, RequestHistogram), Spans())
            backend = Backend(
                SETTINGS, counters, StatsReader(page), outbox, RingEnds(page, "front"), make_router(SETTINGS)
            )
            try:
                async with asyncio.timeout(20):
                    await talk(backend, *far)
            finally:
                await backend.close()

        try:
            asyncio.run(main())
        finally:
            for one in far:
                one.close()

    return run


def submit(backend):
    message = Submit.of([Choice(1, 7)], "prompt", Request(SamplingParams(), 9))
    (stream,) = backend.submit([message])
    return stream


async def taken(stream, pass_on=None):
    """Records that have arrived, at least one."""
    while not (records := stream.take()):
        waiter = asyncio.get_running_loop().create_future()
        stream.wake(waiter, pass_on)
        await waiter
    return records


def test_what_is_said_of_an_earlier_attempt_does_not_reach_the_stream(run, counters):
    async def talk(backend, first, second):
        backend.attach(first.handles)
        stream = submit(backend)
        assert (await first.request()).choices == (Choice(1, 7, 0),)
        first.say(Accepted(1, 0, 5), Started(1, 0, 10, 2))
        first.bring(0, 1, 41)
        assert [unpack_delta(record).token_id for record in await taken(stream)] == [41]
        first.end()
        await backend.lanes[0].closed.wait()
        await backend.detach()
        backend.attach(second.handles)
        again = await second.request()
        assert again.choices == (Choice(1, 7, 1, array("i", [41]).tobytes()),)
        assert again.resumed
        second.say(Refused(1, 0, 500, "late"), Started(1, 0, 10, 9), Accepted(1, 1, 5))
        second.bring(0, 2, 98)  # as if the first were still there
        second.bring(0, 2, -1, FinishReason.FAILED)
        second.bring(1, 2, 42)
        second.bring(0, 3, 99)
        second.bring(1, 3, 43, FinishReason.LENGTH)
        tokens = []
        while len(tokens) < 2:
            tokens += [unpack_delta(record).token_id for record in await taken(stream)]
        assert (tokens, stream.tokens.tolist(), stream.live) == ([42, 43], [41, 42, 43], False)
        assert (stream.cached_tokens, stream.failure) == (2, None)
        backend.finish(stream, cancel=False)

    run(talk)
    assert counters.get(FrontCounter.DROPPED_DELTAS) == 5


def test_a_prompt_is_known_before_its_first_token(run):
    """Both rings have something when the front looks: it reads the replies first."""

    async def talk(backend, first, _):
        backend.attach(first.handles)
        stream = submit(backend)
        first.say(Accepted(1, 0, 5), Started(1, 0, 10, 2))
        first.bring(0, 1, 41)
        seen = []

        def pass_on(records, _):
            seen.append((stream.prompt_tokens, stream.cached_tokens, len(records)))
            return False

        await taken(stream, pass_on)
        assert seen == [(5, 2, 1)]
        backend.finish(stream, cancel=False)

    run(talk)
