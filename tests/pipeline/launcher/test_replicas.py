"""A server of two replicas with two ranks each and two fronts: real processes that only attach to their rings."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from itertools import pairwise

import pytest

from pipeline.config import load_configuration
from pipeline.launcher import Supervisor
from pipeline.stats import StageState, StatsReader
from pipeline.wire.topology import FRONT, Topology
from tests.server.launched import wait_until, write_config

WAIT_S = 60
TOPOLOGY = Topology(fronts=2, replicas=2, ranks=2)
PAIRS = {(stage.key, replica) for stage in TOPOLOGY.stages for replica in TOPOLOGY.replicas_of(stage)}


def command(_stage):
    return [sys.executable, "-m", "tests.pipeline.launcher.small_stage"]


class User(threading.Thread):
    """Does what a test wants while the main thread runs the launcher, and ends it at last."""

    def __init__(self, work):
        super().__init__()
        self._work, self.failure, self.over = work, None, threading.Event()

    def run(self):
        try:
            self._work()
        except BaseException as failure:  # noqa: BLE001 - for the main thread
            self.failure = failure
        while not self.over.is_set():
            os.kill(os.getpid(), signal.SIGTERM)
            self.over.wait(5)


class Watched:
    """The server, and what its stages have said."""

    def __init__(self, directory, monkeypatch, topology):
        self._file = directory / "events"
        self._file.touch()
        monkeypatch.setenv("RINGSERVE_TEST_EVENTS", str(self._file))
        config = load_configuration(write_config(directory), ["serving_config.server_port=0"])
        self._supervisor = Supervisor(config, lambda: config, topology=topology, command=command, weights="first")

    def run(self, work):
        """Exit status."""
        user = User(work)
        before = signal.signal(signal.SIGTERM, lambda *_: None)  # one may come when the launcher has just ended
        user.start()
        try:
            status = self._supervisor.run()
        finally:
            user.over.set()
            user.join(WAIT_S)
            signal.signal(signal.SIGTERM, before)
        if user.failure is not None:
            raise user.failure
        return status

    def events(self):
        return [json.loads(line) for line in self._file.read_text().splitlines(keepends=True) if line.endswith("\n")]

    @property
    def stats(self):
        return StatsReader(self._supervisor._page)

    def serves(self, **generations):
        """Wait until each replica serves in the generation of this number; pids by stage."""
        wanted = {(key, replica, generations[f"replica_{replica}"]) for key, replica in PAIRS}

        def seen():
            attached = {(e["stage"], e["replica"]): e for e in self.events() if e["event"] == "attached"}
            return {(*pair, event["generation"]): event["pid"] for pair, event in attached.items()}

        wait_until(lambda: set(seen()) == wanted, lambda: f"{wanted - set(seen())} never came", WAIT_S)
        states = lambda: {self.stats.state(stage.key) for stage in TOPOLOGY.stages}  # noqa: E731
        wait_until(lambda: states() == {StageState.OK}, lambda: str(states()), WAIT_S)
        return {key: pid for (key, *_), pid in seen().items()}


@pytest.fixture
def server(tmp_path, monkeypatch):
    return Watched(tmp_path, monkeypatch, TOPOLOGY)


# ---- other weights -----------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path):
    """Of an emulated device."""
    made = {}
    for name in ("good", "broken", "mute"):
        made[name] = tmp_path / name
        made[name].mkdir()
        facts = {"vocab_size": 2048, "max_position_embeddings": 512, "name": name}
        (made[name] / "config.json").write_text(json.dumps(facts))
        (made[name] / name).touch()
    return made


def ask(server, folder, call):
    """The last report, when the change that was asked for is over, or refused."""
    draft = server._file.with_suffix(".draft")
    draft.write_text(f"{call} {folder}")
    draft.rename(f"{server._file}.ask")
    found = []

    def over():
        told = [event for event in server.events() if event["event"] == "weights" and event["stage"] == "front 0"]
        found[:] = [one for one in told if one.get("busy", {}).get("call") == call] or [
            one
            for one in told
            if one["change"] and one["change"]["call"] == call and one["change"]["outcome"] != "under way"
        ]
        return bool(found)

    wait_until(over, lambda: f"{folder} is never loaded: {server.events()[-9:]}", WAIT_S)
    return found[-1]


def latest(server):
    """Of each stage but fronts: pid, generation and weights."""
    attached = [event for event in server.events() if event["event"] == "attached" and "weights" in event]
    return {event["stage"]: (event["pid"], event["generation"], event["weights"]) for event in attached}


def on_trial(server):
    """Generations that fronts were to send nothing to, at first."""
    return {(e["stage"], e["replica"], e["generation"]) for e in server.events() if e.get("on_trial")}


def proven(server):
    return {(e["stage"], e["replica"], e["generation"]) for e in server.events() if e["event"] == "proven"}


def test_other_weights_come_to_one_replica_after_the_other(server, folders, capfd):
    def work():
        server.serves(replica_0=1, replica_1=1)
        before = latest(server)
        assert {weights for *_, weights in before.values()} == {"first"}
        report = ask(server, folders["good"], 1)
        server.serves(replica_0=2, replica_1=2)
        (good,) = set(report["replicas"])
        assert (report["change"]["outcome"], report["change"]["done"]) == ("done", [0, 1])
        after = latest(server)
        assert {weights for *_, weights in after.values()} == {good}
        inference = {stage.key for stage in TOPOLOGY.stages if stage.name == "inference"}
        assert {key for key in before if before[key][0] != after[key][0]} == inference  # others keep all they have
        assert not any(server.stats.restarts(stage.key) for stage in TOPOLOGY.stages)
        events = [(e["event"], e.get("replica"), e.get("generation")) for e in server.events()]
        last = max(at for at, event in enumerate(events) if event == ("attached", 0, 2))
        assert events.index(("detached", 1, 1)) > last  # never two at once

        every = {(front.key, replica, 2) for front in TOPOLOGY.every(FRONT) for replica in (0, 1)}
        assert on_trial(server) == every
        wait_until(lambda: proven(server) == every, lambda: f"{proven(server)} are proven", WAIT_S)

        report = ask(server, folders["broken"], 2)
        assert report["change"]["outcome"] == "rolled back"
        assert f"{folders['broken']} is broken, and so is else" in report["change"]["error"]
        assert (report["change"]["replica"], report["change"]["done"]) == (0, [])
        assert set(report["replicas"]) == {good}
        server.serves(replica_0=3, replica_1=2)

        report = ask(server, folders["mute"], 3)
        assert "it does not answer: it has nothing to say" in report["change"]["error"]
        server.serves(replica_0=5, replica_1=2)  # the fourth was with the mute ones
        assert {weights for *_, weights in latest(server).values()} == {good}
        assert on_trial(server) == every | {(front.key, 0, 4) for front in TOPOLOGY.every(FRONT)}
        assert proven(server) == every

        os.kill(latest(server)["inference 0.0"][0], signal.SIGKILL)
        server.serves(replica_0=6, replica_1=2)
        assert {weights for *_, weights in latest(server).values()} == {good}  # a restart has them, too

    assert server.run(work) == 0
    text = capfd.readouterr().err
    for words in ("looking at", "replica 0: loading the weights", "the new weights do not serve, the old ones"):
        assert words in text, words


def detached(events):
    return {
        (event["stage"], event["replica"], event["generation"]) for event in events if event["event"] == "detached"
    }


def verdicts(events):
    return {
        (event["stage"], event["replica"], event["generation"]): (event["culprit"], tuple(event["suspects"]))
        for event in events
        if event["event"] == "verdict"
    }


def test_a_death_revokes_the_rings_of_its_replica_only(server, capfd):
    seen = {}

    def work():
        before = server.serves(replica_0=1, replica_1=1)
        assert len(set(before.values())) == len(TOPOLOGY.stages)
        assert detached(server.events()) == set()

        os.kill(before["inference 1.1"], signal.SIGKILL)  # a rank: the other one is started anew with it
        after = server.serves(replica_0=1, replica_1=2)
        assert {key for key in before if before[key] != after[key]} == {"inference 1.0", "inference 1.1"}
        users = {stage.key for stage in TOPOLOGY.users(1)}
        gone = detached(server.events())
        assert gone - {("inference 1.0", 1, 1)} == {(key, 1, 1) for key in users if not key.startswith("inference")}
        restarts = {stage.key: server.stats.restarts(stage.key) for stage in TOPOLOGY.stages}
        assert {key for key, count in restarts.items() if count} == {"inference 1.0", "inference 1.1"}
        assert set(restarts.values()) == {0, 1}
        assert [server.stats.generation(replica) for replica in (0, 1)] == [1, 2]

        fronts = [front.key for front in TOPOLOGY.every(FRONT)]
        assert verdicts(server.events()) == {(front, 1, 1): ("", ()) for front in fronts}

        os.kill(after["sampling 1"], signal.SIGSEGV)  # by itself, as far as anybody can see
        then = server.serves(replica_0=1, replica_1=3)
        assert {key for key in after if after[key] != then[key]} == {"sampling 1"}
        told = verdicts(server.events())
        assert {told[front, 1, 2] for front in fronts} == {("sampling", (10, 7))}  # who was aboard, preprocess says

        os.kill(then["front 1"], signal.SIGKILL)  # it had a part in both
        end = server.serves(replica_0=2, replica_1=4)
        assert {key for key in then if then[key] != end[key]} == {"front 1"}
        told = verdicts(server.events())
        assert [told["front 0", replica, number] for replica, number in ((0, 1), (1, 3))] == [("", ()), ("", ())]
        assert not [event for event in server.events() if event["event"] == "away"]
        seen.update(end)

    assert server.run(work) == 0
    text = capfd.readouterr().err
    for words in ("inference 1.1 (pid", "was killed by SIGKILL; restarting it", "replica 1: serving again after"):
        assert words in text, words
    assert "1.0 (pid" not in text  # that it was ended, too, is no news
    assert not any(alive(pid) for pid in seen.values())
    for pair in PAIRS:  # one generation after the other, each left before the next
        events = [event for event in server.events() if event["event"] in ("attached", "detached")]
        numbers = [event["generation"] for event in events if (event["stage"], event["replica"]) == pair]
        assert all(old <= new for old, new in pairwise(numbers)), pair


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
