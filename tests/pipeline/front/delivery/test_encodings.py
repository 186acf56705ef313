"""Texts on their way to preprocess and their ids on the way back, over real rings."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np
import pytest

from pipeline.front.delivery.encodings import _SHORT
from pipeline.front.http.errors import ApiError, ClientGone
from pipeline.front.http.worker import MOST_BYTES
from pipeline.wire.request import Accepted, Cancel, Encode, Encoded, GoOn, Refused
from tests.pipeline.front.delivery.test_attempts import counters, run

__all__ = ["counters", "run"]  # fixtures


@dataclass(eq=False)
class Caller:
    """What is asked of an exchange, and of its connection."""

    body_bytes: int = 10
    lost: bool = False
    on_lost: set = field(default_factory=set)

    @property
    def connection(self):
        return self

    def leave(self):
        self.lost = True
        for tell in list(self.on_lost):
            tell("gone")


def ask(backend, request=1, text="text", caller=None):
    return asyncio.create_task(backend.encode(Encode(request, 0, text, 9), caller or Caller()))


def ids(*values):
    return np.array(values, np.int32).tobytes()


def test_every_piece_is_asked_for(run):
    async def talk(backend, first, _):
        backend.attach(first.handles)
        answer = ask(backend)
        assert await first.request() == Encode(1, 0, "text", 9)
        for piece in (ids(1, 2), ids(3)):
            first.say(Encoded(1, 0, 5, piece, last=False))
            assert await first.request() == GoOn(1)
        first.say(Encoded(1, 0, 5, ids(4, 5), last=True))
        assert await answer == (5, ids(1, 2, 3, 4, 5))

    run(talk)


def test_after_a_restart_it_is_sent_again_and_nothing_of_the_first_attempt_counts(run):
    async def talk(backend, first, second):
        backend.attach(first.handles)
        answer = ask(backend)
        await first.request()
        first.say(Encoded(1, 0, 3, ids(1), last=False))
        assert await first.request() == GoOn(1)
        first.end()
        await backend.lanes[0].closed.wait()
        await backend.detach()
        late = ask(backend, 2)  # meanwhile there are no rings
        await asyncio.sleep(0)
        backend.attach(second.handles)
        again = [await second.request(), await second.request()]
        assert again == [Encode(1, 1, "text", 9), Encode(2, 1, "text", 9)]
        second.say(
            Encoded(1, 0, 3, ids(9), last=True), Refused(1, 0, 500, "late"), Encoded(7, 0, 3, ids(9), last=True)
        )
        second.say(Encoded(1, 1, 2, ids(1, 2), last=True), Encoded(2, 1, 1, ids(6), last=True))
        assert (await answer, await late) == ((2, ids(1, 2)), (1, ids(6)))

    run(talk)


def test_a_refusal_is_the_answer(run):
    async def talk(backend, first, _):
        backend.attach(first.handles)
        answer = ask(backend)
        await first.request()
        first.say(Refused(1, 0, 500, "the tokenizer failed on this prompt", "prompt"))
        with pytest.raises(ApiError, match="failed on this prompt") as refused:
            await answer
        assert (refused.value.status, refused.value.parameter) == (500, "prompt")

    run(talk)


@pytest.mark.parametrize("between", [False, True])
def test_a_client_that_leaves_cancels_it(run, between):
    async def talk(backend, first, _):
        backend.attach(first.handles)
        caller = Caller()
        answer = ask(backend, caller=caller)
        await first.request()
        if between:
            first.say(Encoded(1, 0, 5, ids(1), last=False))
            await first.request()
        caller.leave()
        with pytest.raises(ClientGone):
            await answer
        assert await first.request() == Cancel(1)
        assert not caller.on_lost
        first.say(Encoded(1, 0, 5, ids(1), last=True), Accepted(1, 0, 5))  # too late, and harmless
        other = ask(backend, 2)
        assert await first.request() == Encode(2, 0, "text", 9)
        first.say(Encoded(2, 0, 1, ids(8), last=True))
        assert await other == (1, ids(8))

    run(talk)


def test_long_texts_are_sent_one_after_the_other_and_short_ones_pass_by(run):
    async def talk(backend, first, _):
        backend.attach(first.handles)
        long, gone = "x" * (_SHORT + 1), Caller()
        answers = [ask(backend, 1, long), ask(backend, 2, long, gone), ask(backend, 3, long), ask(backend, 4)]
        assert {(await first.request()).request, (await first.request()).request} == {1, 4}
        gone.leave()  # while it waits for its turn: it is never sent
        first.say(Encoded(4, 0, 1, ids(4), last=True))
        assert await answers[3] == (1, ids(4))
        first.say(Encoded(1, 0, 1, ids(1), last=True))
        assert (await first.request()).request == 3
        first.say(Encoded(3, 0, 1, ids(3), last=True))
        assert [await answers[0], await answers[2]] == [(1, ids(1)), (1, ids(3))]
        with pytest.raises(ClientGone):
            await answers[1]

    run(talk)


def test_a_text_that_made_preprocess_fail_twice_is_given_up(run):
    async def talk(backend, first, second):
        backend.attach(first.handles)
        answer, other = ask(backend), ask(backend, 2)
        for _ in range(2):
            await first.request()
        first.end()
        await backend.lanes[0].closed.wait()
        await backend.detach()
        backend.blame([1, 77])
        assert not answer.done()
        backend.blame([1])
        backend.attach(second.handles)
        assert await second.request() == Encode(2, 1, "text", 9)
        with pytest.raises(ApiError, match="made a process of the server fail twice"):
            await answer
        second.say(Encoded(2, 1, 1, ids(8), last=True))
        assert await other == (1, ids(8))

    run(talk)


def test_the_bodies_that_wait_are_bounded(run):
    async def talk(backend, first, _):
        backend.attach(first.handles)
        answer = ask(backend, caller=Caller(MOST_BYTES + 1))  # alone it may be as large as a body may be
        await first.request()
        with pytest.raises(ApiError, match="too many large requests at once") as refused:
            await ask(backend, 2)
        assert refused.value.status == 429
        first.say(Encoded(1, 0, 1, ids(8), last=True))
        await answer
        later = ask(backend, 3)
        assert await first.request() == Encode(3, 0, "text", 9)
        first.say(Encoded(3, 0, 1, ids(8), last=True))
        await later

    run(talk)


def test_before_the_model_is_ready_and_at_the_end_it_is_told(run):
    async def talk(backend, first, _):
        with pytest.raises(ApiError, match="the model is being loaded") as refused:
            await ask(backend)
        assert refused.value.status == 503
        backend.attach(first.handles)
        with pytest.raises(ApiError, match="larger than this server can pass on") as refused:
            await ask(backend, text="x" * (1 << 16))
        assert refused.value.status == 413
        answer = ask(backend)
        await first.request()
        await backend.close()
        with pytest.raises(ApiError, match="the request was lost: the server is shutting down"):
            await answer

    run(talk)
