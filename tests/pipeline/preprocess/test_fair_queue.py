"""Whose turn it is, and who gives up a row."""

import numpy as np

from pipeline.preprocess.fair_queue import FairQueue
from pipeline.preprocess.sequence import Sequence
from pipeline.wire.request import Owner


def sequence(number, key=0, weight=1.0, priority=0, prompt=4):
    owner = Owner(key, weight, priority)
    return Sequence(number, np.zeros(64, np.int32), prompt, 64, known=prompt, arrival_ns=number, owner=owner)


def queue_of(*sequences):
    queue = FairQueue()
    for one in sequences:
        queue.add(one)
    return queue


def admit(queue, one):
    queue.remove(one)
    queue.take_row(one)
    one.row = 0


def order(queue, *, cost=4):
    """All that wait, as they would be computed."""
    taken, turns = [], queue.turns([], None)
    while (one := turns.next()) is not None:
        admit(queue, one)
        queue.charge(one, 0, cost)
        taken.append(one.request)
    return taken


def test_what_nobody_waits_for_is_no_queue_for_what_somebody_does():
    """Of the same key, and behind twenty of those; they progress nevertheless."""
    for key in (0, 7):
        behind = Owner(key, 2.0, 3).in_background(0.25)
        queue = queue_of(*(sequence(n, *behind) for n in range(20)))
        for _ in range(3):
            admit(queue, first := next(iter(queue)))
            queue.charge(first, 0, 4)
        for number in range(100, 108):
            queue.add(sequence(number, key, 2.0, 3))
        assert [request >= 100 for request in order(queue)[:10]].count(True) == 8


def test_one_key_is_served_in_order():
    assert order(queue_of(*(sequence(n) for n in range(5)))) == [0, 1, 2, 3, 4]


def test_keys_take_turns_by_weight():
    many = [sequence(n, key=1) for n in range(6)]
    few = [sequence(n, key=2, weight=2.0) for n in (6, 7, 8)]
    assert order(queue_of(*many, *few)) == [0, 6, 7, 1, 8, 2, 3, 4, 5]


def test_a_class_is_served_before_those_behind_it():
    assert order(queue_of(sequence(0, priority=1), sequence(1), sequence(2, key=9, priority=-3))) == [2, 1, 0]


def test_nobody_saves_up_credit():
    greedy = [sequence(n, key=1) for n in range(8)]
    queue = queue_of(*greedy)
    turns = queue.turns([], None)
    for _ in range(4):
        one = turns.next()
        admit(queue, one)
        queue.charge(one, 0, 40)
    for number in (8, 9, 10):
        queue.add(sequence(number, key=2))
    assert queue.share_of(greedy[0]).counter == 160
    assert order(queue) == [8, 4, 9, 5, 10, 6, 7]  # in turns, though the greedy one has had 160 tokens more


def test_nobody_owes_for_having_been_alone():
    alone = sequence(0, key=1)
    queue = queue_of(alone)
    admit(queue, alone)
    queue.charge(alone, 0, 4000)
    queue.give_row(alone)
    queue.end(alone)
    for number, key in ((1, 2), (2, 2), (3, 1), (4, 1)):
        queue.add(sequence(number, key))
    assert order(queue) == [1, 3, 2, 4]


def test_what_is_computed_again_is_not_charged_again():
    one = sequence(0, key=1, prompt=40)
    queue = queue_of(one)
    queue.charge(one, 0, 30)
    queue.charge(one, 0, 20)
    queue.charge(one, 20, 40)
    assert queue.share_of(one).counter == 40


def held(*sequences, each=1):
    return dict.fromkeys(sequences, each)


def test_a_key_claims_the_newest_row_of_the_one_that_has_most():
    greedy = [sequence(n, key=1) for n in range(4)]
    modest, waiting = sequence(8, key=2), sequence(9, key=1)
    queue = queue_of(*greedy, waiting, modest)
    for one in greedy:
        admit(queue, one)
    assert queue.claim(held(*greedy), 4, lambda _: 1) == (modest, greedy[3])
    second = sequence(10, key=2)
    admit(queue, modest)
    queue.add(second)
    assert queue.claim(held(*greedy[:3], modest), 4, lambda _: 1) == (second, greedy[2])
    admit(queue, second)
    queue.add(sequence(11, key=2))
    assert queue.claim(held(*greedy[:2], modest, second), 4, lambda _: 1) is None  # both have their half


def test_no_row_goes_to_and_fro_between_more_keys_than_rows():
    one, two, three = (sequence(n, key=n) for n in (1, 2, 3))
    queue = queue_of(one, two, three)
    admit(queue, one)
    admit(queue, two)
    assert queue.claim(held(one, two), 2, lambda _: 1) is None


def test_a_weight_counts_in_rows():
    greedy = [sequence(n, key=1, weight=3.0) for n in range(4)]
    modest = [sequence(n, key=2) for n in (8, 9)]
    queue = queue_of(*greedy, *modest)
    for one in greedy:
        admit(queue, one)
    assert queue.claim(held(*greedy), 4, lambda _: 1) == (modest[0], greedy[3])
    admit(queue, modest[0])
    assert queue.claim(held(*greedy[:3], modest[0]), 4, lambda _: 1) is None


def test_a_class_claims_from_those_behind_it_and_never_the_other_way():
    urgent, late = [sequence(n, priority=-1) for n in (5, 6)], [sequence(n) for n in (0, 1)]
    queue = queue_of(*late, *urgent)
    for one in late:
        admit(queue, one)
    assert queue.claim(held(*late), 2, lambda _: 1) == (urgent[0], late[1])
    queue = queue_of(*late, *urgent)
    for one in urgent:
        admit(queue, one)
    assert queue.claim(held(*urgent), 2, lambda _: 1) is None


def test_who_lacks_nothing_or_was_preempted_just_now_claims_nothing():
    greedy, modest = [sequence(n, key=1) for n in range(4)], sequence(8, key=2)
    queue = queue_of(*greedy, modest)
    for one in greedy:
        admit(queue, one)
    assert queue.claim(held(*greedy), 4, lambda _: 0) is None
    modest.pending = 1
    assert queue.claim(held(*greedy), 4, lambda _: 1) is None


def test_blocks_are_given_up_by_the_key_that_has_most():
    small = [sequence(n, key=1) for n in (1, 9)]
    large = [sequence(n, key=2) for n in (2, 3)]
    queue = queue_of(*small, *large)
    for one in (*small, *large):
        admit(queue, one)
    assert queue.largest({small[0]: 2, small[1]: 2, large[0]: 10, large[1]: 1}) is large[1]
    assert queue.exceeds(large[0], {small[0]: 2, large[0]: 10}, 12)
    assert not queue.exceeds(small[0], {small[0]: 2, large[0]: 10}, 12)


def test_how_many_come_before_a_new_one():
    queue = queue_of(*(sequence(n, key=1) for n in range(100)), *(sequence(200 + n, key=2) for n in range(3)))
    assert queue.before(Owner(1)) == 100 + 3
    assert queue.before(Owner(2)) == 3 + 4
    assert queue.before(Owner(3)) == 1 + 1
    assert queue.before(Owner(3, weight=0.1)) == 10 + 3
    assert queue.before(Owner(3, priority=1)) == 103
    assert queue.before(Owner(3, priority=-1)) == 0
    assert FairQueue().before(Owner(1)) == 0


def test_a_closed_share_holds_up_nobody_else():
    first, second, other = sequence(0, key=1), sequence(1, key=1), sequence(2, key=2)
    queue = queue_of(first, second, other)
    turns = queue.turns([], None)
    assert turns.next() is first
    turns.close(first)
    assert turns.next() is other
    admit(queue, other)
    assert turns.next() is None
    turns = queue.turns([other], None)
    turns.close_all()
    assert turns.next() is other  # it has a row
    assert turns.next() is None


def test_what_keys_leave_behind_is_bounded(monkeypatch):
    monkeypatch.setattr("pipeline.preprocess.fair_queue._REMEMBERED", 8)
    queue = FairQueue()
    staying = sequence(0, key=1)
    queue.add(staying)
    for key in range(2, 200):
        gone = sequence(key, key=key)
        queue.add(gone)
        queue.remove(gone)
        queue.end(gone)
    assert len(queue._shares) <= 9
    assert queue.share_of(staying).live == 1
    assert [one.request for one in queue] == [0]
