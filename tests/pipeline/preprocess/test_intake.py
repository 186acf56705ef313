"""What becomes of a request before it is in the queue."""

from __future__ import annotations

import dataclasses
import time

import msgspec
import pytest

from pipeline.preprocess.intake import AT_ONCE, Intake
from pipeline.preprocess.prompts import PromptReader
from pipeline.preprocess.quarantine import Quarantine
from pipeline.preprocess.scheduler import Scheduler
from pipeline.stats import PreprocessCounter
from pipeline.wire.request import Accepted, Cancel, Drop, Owner, Refused, unpack_reply
from tests.pipeline.preprocess.conftest import LIMITS, submit
from tests.pipeline.preprocess.test_prompts import wait_for_word


class Desk:
    def __init__(self, pool, reader, tokenizer, blocks, counters):
        self.pool, self.tokenizer, self.blocks, self.dropped = pool, tokenizer, blocks, []
        self.quarantine = Quarantine()
        self.scheduler = Scheduler(blocks, max_rows=4, token_budget=16, block_table_width=64, ring_slots=4)
        self.intake = Intake(self.scheduler, pool, self.quarantine, self.dropped.append, counters)
        self.intake.reader = reader

    def limit(self, **limits):
        self.intake.reader = PromptReader(self.tokenizer, dataclasses.replace(LIMITS, **limits), self.blocks)

    def take(self, message):
        """The replies to it."""
        self.intake.take(message.pack())
        return self.replies()

    def replies(self):
        replies = list(map(unpack_reply, self.intake.replies))
        self.intake.replies.clear()
        return replies

    def finish(self, wait_s=20):
        import select

        while not self.intake.finish():
            assert select.select([self.pool.fileno()], [], [], wait_s)[0]
        return self.replies()


@pytest.fixture
def desk(pool, reader, tokenizer, blocks, counters):
    return Desk(pool, reader, tokenizer, blocks, counters)


def test_a_short_prompt_is_queued_at_once(desk, tokenizer, counters):
    seen = []
    tokenizer.inside = lambda: seen.append(counters.get(PreprocessCounter.IN_HAND))
    assert desk.take(submit("short", 7)) == [Accepted(7, 0, 5)]
    assert [one.request for one in desk.scheduler.waiting] == [7]
    assert seen == [7]  # should the tokenizer fail, this one is to blame
    assert counters.get(PreprocessCounter.IN_HAND) == 0


@pytest.mark.parametrize("prompt", ["x" * AT_ONCE, [7] * AT_ONCE])
def test_a_longer_one_goes_through_the_pool(desk, prompt):
    assert desk.take(submit(prompt, 1, 2)) == []
    assert desk.pool.requests == 2
    assert desk.finish() == [Accepted(1, 0, AT_ONCE), Accepted(2, 0, AT_ONCE)]
    assert [one.request for one in desk.scheduler.waiting] == [1, 2]
    assert desk.pool.requests == 0


def test_requests_in_the_pool_count_against_the_queue(desk, tokenizer, counters):
    desk.limit(max_queue=4)
    assert desk.take(submit("short", 1)) == [Accepted(1, 0, 5)]
    desk.take(submit("held" + "x" * AT_ONCE, 2, 3))
    full = Refused(9, 0, 429, "the queue is full (4 requests wait); try again later")
    assert desk.take(submit("short", 9, 8)) == [full, msgspec.structs.replace(full, request=8)]
    assert desk.take(submit("short", 4)) == [Accepted(4, 0, 5)]
    assert desk.take(submit("short", 9)) == [full]
    assert desk.take(submit("short", 5, resumed=True)) == [Accepted(5, 1, 5)]  # it had been let in before
    desk.take(Cancel(2))
    desk.take(Cancel(3))
    desk.take(Cancel(4))
    assert desk.take(submit("short", 9)) == [Accepted(9, 0, 5)]


def test_characters_in_the_pool_count_against_the_queue(desk):
    desk.limit(max_queue_chars=3 * AT_ONCE)
    desk.take(submit("held" + "x" * (4 * AT_ONCE), 1))  # alone it may be as long as a prompt may be
    assert [one.status for one in desk.take(submit("x" * AT_ONCE, 2))] == [429]
    desk.take(Cancel(1))
    assert desk.take(submit("x" * AT_ONCE, 2)) == []


def test_a_cancellation_takes_effect_wherever_the_request_is(desk, tokenizer, counters):
    desk.take(submit("held" + "x" * AT_ONCE, 1))
    wait_for_word(counters, PreprocessCounter.TOKENIZING, 1)
    desk.take(Cancel(1))
    assert desk.dropped == []  # sampling has never heard of it
    tokenizer.gates["held"].set()
    desk.take(submit("y" * AT_ONCE, 2))
    assert desk.finish() == [Accepted(2, 0, AT_ONCE)]
    desk.take(Cancel(2))
    assert desk.dropped == [Drop(2)]
    assert not desk.scheduler.waiting


def test_one_that_failed_twice_is_refused_with_whatever_shares_its_prompt(desk):
    desk.quarantine._convicted.append(5)
    refusals = desk.take(submit("short", 4, 5, resumed=True))
    assert [(one.request, one.status) for one in refusals] == [(4, 500), (5, 500)]


def test_what_the_queue_cannot_serve_in_time_is_refused_at_once(desk):
    now = time.monotonic_ns()
    soon, late = now + 2_000_000_000, now + 60_000_000_000
    for number in range(1, 21):
        desk.take(submit("short", number))
    assert desk.take(submit("short", 30, deadline_ns=soon)) == [Accepted(30, 0, 5)]  # nothing is known of the queue
    desk.take(Cancel(30))
    for second in range(3):  # one row a second
        desk.scheduler.stats.admitted = second
        desk.intake.note_pace(now + second * 1_000_000_000)
    (refused,) = desk.take(submit("short", 31, deadline_ns=soon))
    assert (refused.status, refused.code) == (429, "deadline_unreachable")
    assert "requests wait for about 20.0 s" in refused.message
    assert desk.take(submit("short", 32, deadline_ns=late)) == [Accepted(32, 0, 5)]
    assert desk.take(submit("short", 33)) == [Accepted(33, 0, 5)]
    assert desk.take(submit("short", 34, resumed=True, deadline_ns=soon)) == [Accepted(34, 1, 5)]
    owner = Owner(priority=-1)
    assert desk.take(submit("short", 35, deadline_ns=soon, owner=owner)) == [Accepted(35, 0, 5)]


def test_the_gauges_tell_of_the_pool(desk, tokenizer, counters):
    desk.take(submit("held" + "x" * AT_ONCE, 1, 2))
    desk.intake.publish_gauges(3)
    assert counters.get(PreprocessCounter.WAITING) == 5
    assert counters.get(PreprocessCounter.WAITING_FOR_PROMPT) == 2
    assert counters.get(PreprocessCounter.WAITING_CHARS) == 4 + AT_ONCE


@pytest.mark.parametrize("suspect", [False, True])
def test_what_comes_from_another_replica_is_known_to_the_scheduler(desk, suspect):
    message = submit("short", 7)
    desk.take(message.with_choices(message.choices, moved=True, suspect=suspect))
    (sequence,) = desk.scheduler.waiting
    assert sequence.moved
    assert desk.quarantine.is_suspect(7) == suspect
