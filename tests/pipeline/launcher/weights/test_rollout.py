"""Which replica is started anew when, and what it has then."""

from __future__ import annotations

import pytest

from pipeline.launcher.weights.check import Weights
from pipeline.launcher.weights.rollout import Rollout, all_the_same

OLD, NEW = Weights("old"), Weights("new", {"pipeline.model_dir": "/new"})


def everyone(_):
    return True


@pytest.fixture
def rollout():
    return Rollout(3, OLD)


def begun(rollout):
    assert rollout.begin(7, "/new")
    rollout.on_checked(NEW)
    return rollout


def ids(rollout):
    return [one.id for one in rollout.weights]


def test_one_after_the_other_each_when_the_one_before_has_answered(rollout):
    assert rollout.begin(7, "/new")
    assert rollout.state == "checking"
    assert rollout.next(everyone) is None  # the folder has not been looked at
    rollout.on_checked(NEW)
    for number in range(3):
        assert rollout.replacing is None
        assert rollout.next(everyone) == rollout.replacing == number
        assert rollout.next(everyone) is None
        assert ids(rollout) == ["new"] * (number + 1) + ["old"] * (2 - number)
        rollout.on_answered(number)
    assert not rollout.under_way
    report = rollout.report()
    assert (report["state"], report["replicas"]) == ("idle", ["new"] * 3)
    assert report["change"] == {
        "call": 7, "folder": "/new", "weights": "new", "replica": None, "done": [0, 1, 2], "outcome": "done",
        "error": "",
    }  # fmt: skip


def test_none_is_ended_while_another_is_away(rollout):
    begun(rollout)
    rollout.next(everyone)
    rollout.on_answered(0)
    assert rollout.next(lambda other: other != 0) is None
    assert ids(rollout) == ["new", "old", "old"]
    assert rollout.next(everyone) == 1


def test_those_that_are_away_get_them_first(rollout):
    """Without the new weights they might never come back: the folder of the old ones may be gone."""
    begun(rollout)
    assert rollout.next(lambda other: other == 1) == 0  # 2 is away, too, and its turn comes
    rollout.on_answered(0)
    assert rollout.next(lambda other: other != 2) == 2
    rollout.on_answered(2)
    assert rollout.next(everyone) == 1
    rollout.on_answered(1)
    assert rollout.report()["change"]["outcome"] == "done"


def test_one_alone_need_not_wait_for_anybody():
    rollout = begun(Rollout(1, OLD))
    assert rollout.next(lambda _: False) == 0
    rollout.on_answered(0)
    assert rollout.report()["change"]["outcome"] == "done"


def test_one_that_fails_gets_back_what_it_had_and_the_others_stay(rollout):
    begun(rollout)
    rollout.next(everyone)
    rollout.on_answered(0)
    rollout.next(everyone)
    rollout.on_failed(1, "no memory")
    assert ids(rollout) == ["new", "old", "old"]
    change = rollout.report()["change"]
    assert (change["outcome"], change["error"]) == ("rolled back", "no memory")
    assert (change["replica"], change["done"]) == (1, [0])
    assert not rollout.under_way
    assert rollout.begin(8, "/newer")  # and it may be tried again


def test_another_try_is_for_those_that_do_not_have_them_yet(rollout):
    begun(rollout)
    rollout.next(everyone)
    rollout.on_answered(0)
    rollout.next(everyone)
    rollout.on_failed(1, "no memory")
    begun(rollout)
    assert rollout.next(everyone) == 1
    rollout.on_answered(1)
    assert rollout.next(everyone) == 2
    rollout.on_answered(2)
    assert not rollout.under_way
    begun(rollout)  # once more the same ones: all of them
    assert rollout.next(everyone) == 0


def test_what_is_refused_changes_nothing(rollout):
    assert rollout.begin(7, "/new")
    assert not rollout.begin(8, "/other")
    rollout.on_refused("another model")
    assert ids(rollout) == ["old"] * 3
    assert rollout.report()["change"]["outcome"] == "refused"
    assert rollout.report()["change"]["call"] == 7


def test_all_the_same():
    assert all_the_same([NEW, NEW]) == NEW
    assert all_the_same([NEW, OLD]) is None
    assert all_the_same([]) is None
