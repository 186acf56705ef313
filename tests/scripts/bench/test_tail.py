"""Which late tokens are put down to a stage, and which to the machine."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.bench.overhead.chain import chain
from scripts.bench.overhead.device import Device
from scripts.bench.overhead.tail import _SETTLING, PARTS, STAGE_OF, Counts, _hand_over, _judged, serve_watcher
from scripts.lab.workers import worker

NAMES = sorted({*STAGE_OF.values(), "preprocess"})


def token(**changes):
    """A token that is on time."""
    counted = {"ran": dict.fromkeys(NAMES, 0.2), "turns": dict.fromkeys(NAMES, 2)}
    return {"waited": 0.0, "who": "front", "stolen": 0, **counted, **dict.fromkeys(PARTS, 0.1), **changes}


def hand_over(late, *, waited=0.0, stolen=0):
    return {"late": late, "waited": waited, "who": "client", "stolen": stolen}


def judged(*late):
    alone = [hand_over(0.0), hand_over(3.0, waited=1.0), hand_over(4.0, stolen=1), hand_over(0.7)]
    return _judged([token() for _ in range(20)] + list(late), alone)


def test_a_late_token_is_put_down_to_the_stage_whose_part_was_slow():
    ran = dict.fromkeys(NAMES, 0.2) | {"front": 1.0}
    told = judged(token(publish=1.1), token(write=1.0, ran=ran), token(sample=0.3))
    late = {row["part"]: (row["stage"], row["late_tokens"], row["latest_ms"]) for row in told["results"]}
    assert late.pop("publish") == ("sampling", 1, 1.1 - 0.1 + 0.2)  # and what lies between two steps
    assert late.pop("write") == ("front", 1, 1.1)
    assert all(count == 0 for _, count, _ in late.values())
    assert {row["part"]: row["ran_longer_ms"] for row in told["results"]}["write"] == 0.8
    assert (told["latest_ms"], told["excluded_percent"]) == (1.2, 0)
    assert told["goals"][0]["met"] is False


@pytest.mark.parametrize(
    ("late", "why"),
    [
        (token(front=9.0, waited=8.0, who="front"), "(late ones: front 1)"),
        (token(publish=9.0, stolen=1), "the hypervisor took a tick (late ones: 1)"),
        (token(sample=9.0), "of 1 late ones a thread stood still"),
    ],
)
def test_a_token_that_the_machine_has_held_up_is_left_out_and_told(late, why):
    told = judged(late)
    assert (told["latest_ms"], told["excluded_percent"]) == (0.2, round(100 / 21, 2))
    assert why in told["title"].replace("\n", " ")
    assert told["goals"][0]["met"]


def test_a_thread_that_has_slept_or_worked_has_not_stood_still():
    """A page that had to be read, a lock; and a part in which it is woken: who knows when the CPU was."""
    for late in (
        token(sample=9.0, turns=dict.fromkeys(NAMES, 3)),
        token(sample=9.0, ran=dict.fromkeys(NAMES, 9.1)),
        token(publish=9.0),
    ):
        assert judged(late)["excluded_percent"] == 0


def test_hand_overs_alone_are_judged_in_the_same_way():
    told = judged()
    assert (told["late_alone"], told["latest_alone_ms"]) == (1, 0.7)
    assert "3 of 4 hand-overs were later" in told["title"]


def test_no_token_without_an_excuse_is_no_goal_met():
    told = _judged([token(waited=1.0)], [])
    assert (told["latest_ms"], told["goals"][0]["met"], told["latest_alone_ms"]) == (None, None, None)


def test_counts_are_those_of_the_time_around_a_token():
    counts = Counts(4, 2)
    counts.waited[:] = np.array([[0, 0], [0, 1], [5, 1], [5, 9]]) * 1_000_000
    counts.ran[:], counts.turns[:] = counts.waited, [[1, 1], [1, 2], [3, 2], [4, 2]]
    counts.stolen[:] = 0, 0, 1, 2
    assert counts.waited_ms(2).tolist() == [5, 1]
    assert [counts.stolen_ticks(2), counts.stolen_ticks(3)] == [2, 2]
    assert [each.tolist() for each in counts.around(2)] == [[5, 8], [3, 0]]


def test_a_chain_hands_every_step_over(tmp_path):
    file = Device(1.0).write(tmp_path / "tail.yaml", 1)
    with worker(serve_watcher) as watcher, chain(file) as bare:
        for _ in range(2):
            rows = _hand_over(bare, watcher, 50)
            assert len(rows) == 50 - _SETTLING
            assert all(row["who"] in {*bare.pids, "client"} for row in rows)
