"""Where ranks meet, as the launcher sees it; this process is the first rank."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from model.errors import PartedError
from model.mindspore_common.ranks import Gather, Ranks, begin, join, leave
from pipeline.launcher.hang_detector import Hang
from pipeline.launcher.meetings import Meetings
from pipeline.launcher.supervisor import Supervisor
from pipeline.wire.topology import INFERENCE, ONE_OF_EACH, Topology
from tests.server.launched import wait_until

TOPOLOGY = Topology(replicas=2, ranks=2)
FIRST, SECOND, *OTHERS = TOPOLOGY.every(INFERENCE)
GENERATION = 3


@pytest.fixture
def meetings():
    meetings = Meetings(TOPOLOGY)
    yield meetings
    meetings.close()


@pytest.fixture
def waiting(meetings):
    """The first rank waits in a gather for the second one, which never comes; what it is told in the end."""
    said = []

    def gather():
        try:
            Gather(2)(np.zeros(1, np.int8), np.zeros((2, 1), np.int8))
        except PartedError as error:
            said.append(str(error))

    join(Ranks(0, 2, meetings.fd_of(FIRST, {})))
    begin(GENERATION)
    thread = threading.Thread(target=gather)
    thread.start()
    yield thread, said
    meetings.end_generation(0, GENERATION)
    thread.join(60)
    leave()


def test_one_segment_for_a_unit_and_a_new_one_for_new_processes(meetings):
    first = meetings.fd_of(FIRST, {})
    assert meetings.fd_of(SECOND, {FIRST.key}) == first
    assert meetings.fd_of(OTHERS[0], {FIRST.key, SECOND.key}) != first
    old = meetings._segments[FIRST.unit]
    meetings.fd_of(SECOND, {OTHERS[0].key})
    assert meetings._segments[FIRST.unit] is not old
    assert Meetings(ONE_OF_EACH).fd_of(ONE_OF_EACH.every(INFERENCE)[0], {}) is None


def test_the_end_of_a_generation_ends_the_wait_of_its_replicas_ranks(meetings, waiting):
    thread, said = waiting
    meetings.end_generation(1, GENERATION)
    meetings.end_generation(0, GENERATION - 1)
    thread.join(0.2)
    assert thread.is_alive()
    meetings.end_generation(0, GENERATION)
    thread.join(60)
    assert said == ["the ranks are apart: the generation has ended"]


def test_of_ranks_that_hang_the_one_that_others_wait_for_is_blamed(meetings, waiting):
    wait_until(lambda: meetings.is_waited_for(SECOND), "nobody waits", 60)
    assert not any(map(meetings.is_waited_for, [FIRST, *OTHERS]))
    supervisor = SimpleNamespace(_processes=SimpleNamespace(meetings=meetings))
    hangs = [Hang(SimpleNamespace(spec=rank), 5.0, "it has work and makes no progress") for rank in (FIRST, SECOND)]
    blamed = max(hangs, key=lambda hang: Supervisor._may_be_to_blame(supervisor, hang))
    assert blamed is hangs[1]
