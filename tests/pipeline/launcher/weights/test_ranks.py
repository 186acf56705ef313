"""Ranks that die slowly while their replica gets other weights: real processes, reaped when the test says."""

from __future__ import annotations

import signal
import sys
from types import SimpleNamespace

import pytest

from pipeline.config import load_configuration
from pipeline.launcher import Supervisor
from pipeline.launcher.child import REPLACED, WITH_OTHERS, Child
from pipeline.launcher.hang_detector import Hang, HangDetector
from pipeline.launcher.meetings import Meetings
from pipeline.launcher.replica import Replica
from pipeline.launcher.weights import Changes
from pipeline.launcher.weights.check import Weights
from pipeline.runtime.control_channel import Channel
from pipeline.stats import StatsPage, Supervision
from pipeline.wire.topology import Topology
from tests.server.launched import write_config

TOPOLOGY = Topology(ranks=2)
RANKS = [stage for stage in TOPOLOGY.stages if stage.name == "inference"]
UNIT = RANKS[0].unit


@pytest.fixture
def supervisor(tmp_path):
    """In the midst of a change: its only replica has two ranks with the old weights."""
    config = load_configuration(write_config(tmp_path))
    made = Supervisor(config, lambda: config, topology=TOPOLOGY)
    made._page = page = StatsPage.create(TOPOLOGY)
    page.unlink()
    made._supervision, made._hang_detector = Supervision(page), HangDetector(page, 60)
    children, made._was_complete = {}, True
    made._processes = SimpleNamespace(children=children, meetings=Meetings(TOPOLOGY))
    common = children, made._hang_detector, made._supervision
    made._replicas = [Replica(TOPOLOGY, 0, SimpleNamespace(current=None, number=1, weights=""), *common)]
    restart = lambda unit: made._restart_at.update({unit: 0.0})  # noqa: E731
    made._changes = Changes("old", TOPOLOGY, made._replicas, children, made._supervision, restart)
    all_children = [start(made, stage) for stage in RANKS]
    made._changes._rollout.begin(1, "/new")
    made._changes._rollout.on_checked(Weights("new"))
    yield made
    for child in all_children:
        child.signal(signal.SIGKILL)
    made._processes.meetings.close()
    page.close()


def start(supervisor, stage):
    channel, theirs = Channel.pair()
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    child = Child.start(stage, [0], command, theirs.fileno(), [], channel)
    theirs.close()
    supervisor._processes.children[stage.key] = child
    return child


def dies(supervisor, child):
    """It was killed; now that is noticed, as `StageProcesses.wait` does."""
    child.signal(signal.SIGKILL)
    del supervisor._processes.children[child.name]
    supervisor._on_death(child)


def is_new(supervisor):
    """Nothing of the replica has old weights any more, and the change goes on."""
    changes, rollout = supervisor._changes, supervisor._changes._rollout
    return (changes._is_new(supervisor._replicas[0]), rollout.under_way, [one.id for one in rollout.weights])


def test_a_rank_that_waits_for_the_one_that_is_being_replaced_does_not_hang(supervisor):
    first, second = supervisor._processes.children.values()
    supervisor._changes.look()
    assert first.ended_as == REPLACED
    supervisor._on_hang(Hang(second, 9.0, "it waits"), second)
    assert (first.ended_as, second.ended_as) == (REPLACED, None)
    dies(supervisor, first)
    assert second.ended_as == WITH_OTHERS
    dies(supervisor, second)
    assert is_new(supervisor) == (True, True, ["new"])
    assert supervisor._restart_at == {UNIT: 0.0}


def test_the_other_rank_may_die_first(supervisor):
    """Since the first one is gone: neither are the new weights to blame, nor is the first one forgotten."""
    first, second = supervisor._processes.children.values()
    supervisor._changes.look()
    dies(supervisor, second)
    assert first.ended_as == REPLACED
    assert is_new(supervisor) == (False, True, ["new"])
    assert supervisor._is_ending(UNIT)
    dies(supervisor, first)
    assert is_new(supervisor) == (True, True, ["new"])


def test_a_change_goes_on_when_all_ranks_are_gone_or_going(supervisor):
    first, second = supervisor._processes.children.values()
    supervisor._changes._leaving = 1  # of a replica that had its turn
    first.ended_as = WITH_OTHERS
    dies(supervisor, second)
    supervisor._changes.look()
    assert is_new(supervisor) == (True, True, ["new"])
    dies(supervisor, first)
    assert is_new(supervisor) == (True, True, ["new"])
