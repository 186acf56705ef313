"""What a front's kept answers take, and what it makes of the journal of the one before."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os

import pytest

import ipc
from model.sampling import SamplingParams
from pipeline.front.delivery.kept.answer import KeptExchange
from pipeline.front.delivery.kept.answers import Background, KeptAnswers
from pipeline.front.delivery.kept.journal import Begun, Ended, Opened, Tried
from pipeline.front.http.access import ApiKey
from pipeline.front.http.account import Account
from pipeline.front.http.errors import ApiError, ClientGone
from pipeline.front.http.request_parser import Head
from pipeline.front.settings import FrontSettings
from pipeline.wire.request import Choice, Request, Submit

FIELDS = {"vocab_size": 100, "max_length": 64, "max_prompt": 60, "max_rows": 4, "max_queue": 40}
SETTINGS = FrontSettings(model_name="tiny", kept_bytes=1 << 18, **FIELDS)
DETACHED = {b"x-detached-s": b"9"}
SEEDS = [f"{number:032x}" for number in range(1, 5)]


@pytest.fixture
def journal():
    fd = ipc.make_log(1 << 20)
    yield fd
    os.close(fd)


def write(fd, owner, *records):
    log = ipc.Log(fd)
    ipc.LogWriter(log, owner).append([record.pack() for record in records])
    log.close()


def opened(seed, number=1, **fields):
    submit = Submit.of([Choice(number, 7)], "a", Request(SamplingParams(), 20)).pack()
    fields = {"key": "", "body": b"{}", "submits": (submit,), **fields}
    return Opened(seed, created=1, arrival_ns=1, path="/v1/completions", headers=(), seconds=20.0, **fields)


async def make(exchange):
    """Several events, with a turn of the loop before each."""
    exchange.answer.open(b"\n\n", b"{}", ())
    await exchange.start(200, b"text/event-stream")
    for _ in range(3):
        await asyncio.sleep(0)
        await exchange.write(b"data: x\n\n")
    await exchange.end(b"data: y\n\n")


def run(talk, fd, make=make, accounts=lambda _: None):
    async def main():
        kept = KeptAnswers(SETTINGS, fd)
        kept.restore(lambda _: make, accounts, itertools.count(100).__next__)
        try:
            async with asyncio.timeout(30):
                await talk(kept)
        finally:
            kept.stop()
            await pass_turns()
            kept.close()

    asyncio.run(main())


async def hang(exchange):
    await asyncio.Event().wait()


def test_what_one_key_holds_keeps_no_other_out(journal):
    held = [opened(seed, number, key="a", body=bytes(100_000)) for number, seed in enumerate(SEEDS[:2], 1)]
    for number, one in enumerate(held, 1):
        write(journal, number, one)

    def asks(key):
        head = Head("POST", "/v1/completions", b"", {b"x-detached-s": b"20"}, modern=True, keep_alive=False)
        exchange = KeptExchange(head, SETTINGS)
        exchange.account = Account(ApiKey(key))
        return exchange

    async def talk(kept):
        with pytest.raises(ApiError, match="no room"):
            await kept.serve(asks("a"), 20.0, hang)
        other = asyncio.create_task(kept.serve(asks("b"), 20.0, hang))
        await pass_turns()
        assert (len(kept), other.done()) == (3, False)
        other.cancel()

    run(talk, journal, make=hang, accounts=lambda key: Account(ApiKey(key)))


def test_texts_that_nobody_waits_for_are_bounded(journal):
    """Not those that a client reads; a key that has less than its share of them may have another one."""
    write(journal, 1, opened(SEEDS[0], key="a"))
    write(journal, 2, opened(SEEDS[1], 2, key="a"), Ended())

    def asks(key, headers):
        exchange = KeptExchange(Head("POST", "/", b"", headers, modern=True, keep_alive=False), SETTINGS)
        exchange.account = Account(ApiKey(key))
        return exchange

    async def talk(kept):
        kept._settings = dataclasses.replace(SETTINGS, max_background=3)
        tasks = [
            asyncio.create_task(kept.serve(asks("a", {}), 20.0, two_texts, Background.ALONE)),
            asyncio.create_task(kept.serve(asks("a", {b"x-detached-s": b"9"}), 20.0, hang)),
        ]
        await pass_turns()
        for background, headers in ((Background.ALONE, {}), (Background.STREAMED, {}), (Background.NO, DETACHED)):
            with pytest.raises(ApiError, match=r"^3 texts .*pipeline\.max_background") as refused:
                await kept.serve(asks("a", headers), 20.0, hang, background)
            assert (refused.value.status, refused.value.headers) == (429, ((b"retry-after", b"1"),))
        made = []

        async def own(exchange):
            made.append(type(exchange))

        await kept.serve(exchange := asks("a", {}), 20.0, own)
        assert made == [type(exchange)]  # it did not ask for it: it is served, and not kept
        tasks.append(asyncio.create_task(kept.serve(asks("b", {}), 20.0, two_texts, Background.ALONE)))
        await pass_turns()
        assert len(kept) == 5
        for task in tasks:
            task.cancel()

    run(talk, journal, make=hang, accounts=lambda key: Account(ApiKey(key)))


def test_one_that_is_dropped_in_the_middle_of_a_stream_leaves_nothing(journal):
    for number, seed in enumerate(SEEDS[:2], 1):
        write(journal, number, opened(seed, number))

    async def stream(exchange):
        exchange.answer.open(b"\n\n", b"{}", ())
        await exchange.start(200, b"text/event-stream")
        for number in itertools.count():
            exchange.answer.note([Begun(1, number, 0).pack()])
            await exchange.write(b"data: x\n\n")
            await asyncio.sleep(0)

    async def talk(kept):
        await pass_turns()
        dropped, left = (kept.find(seed, None) for seed in SEEDS[:2])
        kept.drop(dropped)
        before = kept.used
        dropped.note([b"more of it"])
        dropped.note_origin(1, 0, "other")
        assert kept.used == before == left.weight
        await pass_turns()
        assert kept.used == left.weight > before
        (found,) = kept.journal.read()
        assert found.opened.seed == left.seed
        assert left.writer.size == sum(12 + len(record) for record in found.packed)

    run(talk, journal, make=stream)


async def two_texts(exchange):
    submits = [Submit.of([Choice(number, 7)], "a", Request(SamplingParams(), 20)) for number in (8, 9)]
    exchange.answer.open(b"\n\n", b"{}", submits)
    await asyncio.Event().wait()


def test_the_oldest_of_the_key_that_holds_the_most_makes_room(journal):
    """By what they weigh, however many there are."""
    owners = "aabab"
    for number, key in enumerate(owners):
        write(journal, number, opened(f"{number:032x}", number + 1, key=key, body=bytes(50_000)), Ended())

    async def talk(kept):
        assert not kept._why_full("c")
        assert [key for number, key in enumerate(owners) if f"{number:032x}" in kept._answers] == ["b", "a", "b"]

    run(talk, journal, accounts=lambda key: Account(ApiKey(key)))


@pytest.mark.parametrize("tried", [0, 1, None])
def test_of_a_front_s_deaths_only_the_one_that_was_tried_alone_is_to_blame(journal, tried):
    for number, seed in enumerate(SEEDS[:3]):
        write(journal, number, opened(seed, number + 1, barren=2))
    if tried is not None:
        write(journal, tried, Tried())

    async def talk(kept):
        answers = [kept.find(seed, None) for seed in SEEDS[:3]]
        refused = [answer.written.error is not None for answer in answers]
        assert refused == [number == tried for number in range(3)]
        waiting = [answer for answer in answers if answer.written.error is None]
        for number, answer in enumerate(waiting):  # one at a time
            await pass_turns()
            assert [one.begun for one in waiting] == [other <= number for other in range(len(waiting))]
            assert [found.opened.seed for found in kept.journal.read() if found.tried] == [answer.seed]
            if number == 0:  # something comes of it, or it is deleted
                answer.note_begin(100, 5, 0)
            else:
                answer.give_up("it was deleted")
        await pass_turns()
        assert not any(found.tried for found in kept.journal.read())

    run(talk, journal, make=wait_until_lost)


async def wait_until_lost(exchange):
    exchange.answer.open(b"\n\n", b"{}", ())
    lost = asyncio.Event()
    exchange.connection.on_lost.add(lambda _: lost.set())
    await lost.wait()
    raise ClientGone("its client did not come back")


async def pass_turns(count=20):
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 20])
def test_an_answer_that_is_dropped_while_it_is_made_again_takes_nothing(journal, turns):
    write(journal, 1, opened(SEEDS[0]), Ended())

    async def talk(kept):
        answer = kept.find(SEEDS[0], None)
        await pass_turns(turns)
        answer.give_up("it was deleted")
        await pass_turns()
        assert (len(kept), kept.used) == (0, 0)

    run(talk, journal)


def test_nothing_is_made_again_to_be_deleted(journal):
    write(journal, 1, opened(SEEDS[0]), Ended())

    async def talk(kept):
        assert not kept.find(SEEDS[0], None, make=False).begun
        assert kept.find(SEEDS[0], None).begun

    run(talk, journal)


def test_a_log_of_something_else_is_not_taken_over(journal):
    os.pwrite(journal, b"something", 0)

    async def talk(kept):
        assert (len(kept), kept.used) == (0, 0)

    run(talk, journal)


@pytest.mark.parametrize("record", [b"short", bytes(8), bytes(8) + b"\xff", b"\1" * 12])
def test_a_log_with_a_bad_record_is_empty(journal, record):
    log = ipc.Log(journal)
    ipc.LogWriter(log, 1).append([opened(SEEDS[0]).pack(), record])
    log.close()

    async def talk(kept):
        assert (len(kept), kept.used) == (0, 0)

    run(talk, journal)
    run(talk, journal)


def test_one_bad_answer_costs_no_other(journal):
    write(journal, 1, opened(SEEDS[0], submits=(b"junk",)))
    write(journal, 2, opened(SEEDS[1], 2), Ended())

    async def talk(kept):
        assert len(kept) == 1
        assert kept.find(SEEDS[1], None).ended

    run(talk, journal)
