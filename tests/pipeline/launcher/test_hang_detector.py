"""Which front hangs, which is busy, and which was well: a real page, a clock and processes that the test moves."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from pipeline.launcher import hang_detector
from pipeline.launcher.child import Attachment, Phase
from pipeline.launcher.generation_progress import USEFUL_BEATS
from pipeline.launcher.hang_detector import BUSY_PATIENCE, LOADING_PATIENCE, HangDetector
from pipeline.launcher.process_stat import ProcessStat
from pipeline.launcher.replica import Replica
from pipeline.runtime.generations import CRASHED, HUNG, culprit
from pipeline.stats import FrontCounter, InferenceCounter, StatsPage, Supervision
from pipeline.wire.topology import INFERENCE, ONE_OF_EACH, STAGES, Topology

PATIENCE_S = 5.0
RANKS = Topology(ranks=2)


@dataclass
class Process:
    """A child, and what the kernel says of it."""

    name: str = "front"
    pid: int = 7
    topology: Topology = ONE_OF_EACH
    attachment: Attachment = field(default_factory=lambda: Attachment(Phase.WAITING, 1))
    heard: int = 0
    began: float = 0.0
    stat: ProcessStat = field(default_factory=lambda: ProcessStat(stopped=False, cpu_ticks=0))
    loading: bool = False

    @property
    def spec(self):
        return self.topology.stage(self.name)

    @property
    def attachments(self):
        return {0: self.attachment}

    @property
    def title(self):
        return f"{self.name} (pid {self.pid})"


@dataclass
class Rings:
    """What is seen of the rings of a generation."""

    due: frozenset = frozenset()
    moved: int = 0

    def snapshot(self):
        return Snapshot(self.due, self.moved)


@dataclass(frozen=True)
class Snapshot:
    due: frozenset
    moved: int

    def positions(self, stage):
        return (self.moved,)

    def is_due(self, stage):
        return stage in self.due

    @property
    def has_work(self):
        return bool(self.due)


class World:
    def __init__(self, page, monkeypatch):
        self.now, self.page, self.front, self.rings = 0.0, page, Process(), Rings()
        monkeypatch.setattr(hang_detector.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(hang_detector, "process_stat", lambda pid: self.front.stat)
        monkeypatch.setattr(hang_detector, "RingGauges", lambda *_: self.rings)
        self.detector = HangDetector(page, PATIENCE_S)

    def beat(self, count=1):
        self.page.views.front[FrontCounter.BEAT] += count

    def compute(self):
        self.front.stat = ProcessStat(stopped=False, cpu_ticks=self.front.stat.cpu_ticks + 20)

    def until_hang(self, each_check, most_s=1000):
        """The hang that is found, and when."""
        began = self.now
        while self.now - began < most_s:
            self.now = self.detector.due
            each_check()
            if hangs := self.detector.check([self.front]):
                return hangs[0], self.now - began
        return None, self.now - began


@pytest.fixture
def world(monkeypatch, page):
    return World(page, monkeypatch)


def nothing():
    pass


@pytest.mark.parametrize("due", [(), ("front",)])
@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.ATTACHING, Phase.SERVING, Phase.LEAVING])
def test_a_front_that_neither_beats_nor_computes_hangs_soon(world, phase, due):
    world.detector.begin(0, None)
    world.front.attachment.phase, world.rings.due = phase, frozenset(due)
    hang, after = world.until_hang(nothing)
    assert PATIENCE_S <= after <= PATIENCE_S + 2
    assert not hang.stopped


def test_a_stopped_one_is_called_so(world):
    world.front.stat = ProcessStat(stopped=True, cpu_ticks=3)
    hang, after = world.until_hang(nothing)
    assert hang.stopped
    assert after <= PATIENCE_S + 2


@pytest.mark.parametrize("due", [(), ("front",)])
@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.ATTACHING, Phase.SERVING, Phase.LEAVING])
def test_one_that_computes_has_more_time_but_not_for_ever(world, caplog, phase, due):
    """Even where its rings hold something, or something is expected of it."""
    world.detector.begin(0, None)
    world.front.attachment.phase, world.rings.due = phase, frozenset(due)
    with caplog.at_level(logging.WARNING, "ringserve.launcher"):
        hang, after = world.until_hang(world.compute)
    assert BUSY_PATIENCE * PATIENCE_S <= after <= BUSY_PATIENCE * PATIENCE_S + 2
    assert "though it uses the CPU" in hang.what
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["front (pid 7) is busy"]


def test_one_that_beats_again_in_time_is_warned_of_once_each_time(world, caplog):
    with caplog.at_level(logging.WARNING, "ringserve.launcher"):
        for _ in range(3):
            assert world.until_hang(world.compute, most_s=BUSY_PATIENCE * PATIENCE_S - 3)[0] is None
            world.beat()
    assert len(caplog.records) == 3


def test_one_that_computed_and_then_stands_still_hangs_soon_after(world):
    world.until_hang(world.compute, most_s=12)
    hang, after = world.until_hang(nothing)
    assert after <= PATIENCE_S + 2
    assert hang.still_s >= 12


def test_a_short_pause_is_neither(world, caplog):
    for _ in range(20):
        assert world.until_hang(nothing, most_s=PATIENCE_S - 2)[0] is None
        world.beat()
    assert not caplog.records


def test_work_that_lies_about_while_the_loop_runs_is_a_hang(world):
    """Computing is no excuse then: the loop has time for other things."""

    def busy():
        world.beat()
        world.compute()

    world.detector.begin(0, None)
    world.front.attachment.phase, world.rings.due = Phase.SERVING, frozenset({"front"})
    hang, after = world.until_hang(busy)
    assert hang.what == "it has work and makes no progress"
    assert after <= PATIENCE_S + 2


@pytest.mark.parametrize("stage", ["preprocess", "inference", "sampling"])
def test_other_stages_are_judged_by_their_rings_alone(world, stage):
    world.detector.begin(0, None)
    world.front = Process(stage, attachment=Attachment(Phase.SERVING, 1))
    world.rings.due = frozenset({stage})
    hang, after = world.until_hang(world.compute)
    assert hang.what == "it has work and makes no progress"
    assert after <= PATIENCE_S + 2


@pytest.fixture
def compiling(world):
    """Inference, with steps in its ring, which it does not take meanwhile."""
    world.detector.begin(0, None)
    world.front = Process("inference", attachment=Attachment(Phase.SERVING, 1))
    world.rings.due = frozenset({"inference"})
    world.page.views.inference[InferenceCounter.COMPILING] = 1
    return world


@pytest.mark.parametrize("phase", [Phase.SERVING, Phase.LEAVING])
def test_one_that_compiles_does_not_hang(compiling, phase):
    compiling.front.attachment.phase = phase
    assert compiling.until_hang(compiling.compute, most_s=300)[0] is None


def test_a_compilation_that_does_nothing_hangs_late_and_a_stopped_one_soon(compiling):
    hang, after = compiling.until_hang(nothing)
    assert hang.what == "compiling makes no progress"
    assert LOADING_PATIENCE * PATIENCE_S <= after <= LOADING_PATIENCE * PATIENCE_S + 2
    compiling.page.views.inference[InferenceCounter.COMPILED] += 1
    compiling.front.stat = ProcessStat(stopped=True, cpu_ticks=1)
    hang, after = compiling.until_hang(nothing)
    assert hang.stopped
    assert after <= PATIENCE_S + 2


def test_behind_a_compilation_all_is_as_before(compiling):
    compiling.until_hang(compiling.compute, most_s=100)
    compiling.page.views.inference[InferenceCounter.COMPILING] = 0
    hang, after = compiling.until_hang(compiling.compute)
    assert hang.what == "it has work and makes no progress"
    assert after <= PATIENCE_S + 2


@pytest.mark.parametrize(("at_it", "blamed"), [(1, None), (0, "inference")])
def test_no_request_is_to_blame_for_a_death_in_a_compilation(compiling, at_it, blamed):
    compiling.page.views.inference[InferenceCounter.COMPILING] = at_it
    rings = SimpleNamespace(current=None)
    replica = Replica(ONE_OF_EACH, 0, rings, {}, compiling.detector, Supervision(compiling.page))
    replica.on_death(compiling.front, CRASHED)
    assert culprit(replica._ended, 1, "inference") == blamed


@pytest.mark.parametrize(
    ("topology", "how", "phase", "blamed"),
    [
        (RANKS, HUNG, Phase.LEAVING, None),
        (RANKS, CRASHED, Phase.LEAVING, "inference"),
        (RANKS, HUNG, Phase.SERVING, "inference"),
        (ONE_OF_EACH, HUNG, Phase.LEAVING, "inference"),
    ],
)
def test_no_request_is_to_blame_where_a_rank_waits_for_one_that_has_left(world, topology, how, phase, blamed):
    page = StatsPage.create(topology)
    page.unlink()
    inference = topology.every(INFERENCE)[0].key
    replica = Replica(topology, 0, SimpleNamespace(current=None), {}, HangDetector(page, 1), Supervision(page))
    replica.on_death(Process(inference, topology=topology, attachment=Attachment(phase, 1)), how)
    assert culprit(replica._ended, 1, "inference") == blamed
    page.close()


@pytest.mark.parametrize(("beats", "useful"), [(USEFUL_BEATS - 1, set()), (USEFUL_BEATS, {"front"})])
def test_a_front_that_was_well_for_a_while_was_useful(world, beats, useful):
    world.detector.begin(0, None)
    world.beat(100)  # before all stages served
    world.detector.complete(0)
    world.beat(beats)
    assert world.detector.end(0) == useful


def test_beats_in_a_generation_that_was_never_complete_are_none(world):
    world.detector.begin(0, None)
    world.beat(100)
    assert world.detector.end(0) == set()


def test_what_moved_in_the_rings_was_useful_as_before(world):
    world.detector.begin(0, None)
    world.detector.complete(0)
    world.rings.moved += 1
    assert world.detector.end(0) == set(STAGES)


# ---- ranks --------------------------------------------------------------------------------------------------------


@pytest.fixture
def ranks(monkeypatch):
    page = StatsPage.create(RANKS)
    page.unlink()
    world = World(page, monkeypatch)
    world.front = Process("inference 0.1", topology=RANKS, attachment=Attachment(Phase.SERVING, 1))
    world.detector.begin(0, None)
    world.rings.due = frozenset({"inference 0.0", "inference 0.1"})
    yield world
    page.close()


def test_ranks_get_on_as_long_as_one_of_them_does(ranks):
    def move():
        ranks.rings.moved += 1

    assert ranks.until_hang(move, most_s=5 * PATIENCE_S)[0] is None
    hang, after = ranks.until_hang(nothing)
    assert (hang.child.name, hang.what) == ("inference 0.1", "it has work and makes no progress")
    assert after <= PATIENCE_S + 2


def test_a_rank_that_waits_for_another_stage_does_not_hang(ranks):
    ranks.rings.due = frozenset({"inference 0.0"})
    assert ranks.until_hang(nothing, most_s=5 * PATIENCE_S)[0] is None


def test_a_rank_that_waits_for_another_one_that_loads_does_not_hang(ranks, monkeypatch):
    """Until that one hangs, too."""
    waits, loads = (Process(f"inference 0.{rank}", rank + 1, RANKS, loading=True) for rank in range(2))
    monkeypatch.setattr(hang_detector, "process_stat", lambda pid: (waits, loads)[pid - 1].stat)

    def hangs(ticks):
        end = ranks.now + 3 * LOADING_PATIENCE * PATIENCE_S
        while ranks.now < end:
            ranks.now = ranks.detector.due
            loads.stat = ProcessStat(stopped=False, cpu_ticks=loads.stat.cpu_ticks + ticks)
            if found := ranks.detector.check([waits, loads]):
                return [hang.child for hang in found]
        return []

    assert hangs(ticks=1) == []
    assert hangs(ticks=0) == [waits, loads]
