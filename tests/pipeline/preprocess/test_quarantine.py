"""Who is suspected of a failure, who is cleared, and who is refused."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.preprocess import quarantine as module
from pipeline.preprocess.quarantine import Quarantine
from pipeline.preprocess.sequence import Sequence


def sequence(request, known=5):
    return Sequence(request, np.zeros(20, np.int32), prompt=3, limit=20, known=known)


@pytest.fixture
def quarantine():
    return Quarantine()


def test_everybody_aboard_is_a_suspect_until_past_the_step(quarantine):
    first, second = sequence(1), sequence(2)
    second.pending = 1
    quarantine.accuse("inference", [first, second], None)
    assert quarantine.is_suspect(1)
    assert quarantine.is_suspect(2)
    assert not quarantine.is_suspect(3)
    assert not quarantine.is_convicted(1)
    for which, cleared_at in ((first, 7), (second, 8)):
        which.known = cleared_at - 1
        assert not quarantine.clears(which)
        which.known = cleared_at
        assert quarantine.clears(which)
    assert quarantine.clears(sequence(3, known=0))


def test_one_that_was_alone_is_convicted(quarantine):
    one, other = sequence(1), sequence(2)
    quarantine.accuse("sampling", [one, other], None)
    quarantine.accuse("sampling", [one], one)
    assert quarantine.is_convicted(1)
    assert not quarantine.is_suspect(1)
    assert quarantine.is_suspect(2)
    quarantine.acquit(2)
    assert not quarantine.is_suspect(2)


def test_what_is_never_heard_of_again_does_not_pile_up(monkeypatch):
    monkeypatch.setattr(module, "_REMEMBERED", 3)
    quarantine = Quarantine()
    for request in range(6):
        quarantine.accuse("inference", [sequence(request)], None)
    assert [quarantine.is_suspect(request) for request in range(6)] == [False] * 3 + [True] * 3


def test_a_suspect_of_another_replica_is_one_here(quarantine):
    quarantine.suspect(one := sequence(1, known=8))
    assert quarantine.is_suspect(1)
    one.known = 9
    quarantine.suspect(one)  # said again, it counts from where it was
    assert not quarantine.clears(one)
    one.known = 10
    assert quarantine.clears(one)
