"""Stages are killed, stopped and starved, alone and together; the server comes back, or ends and says why.

What becomes of requests under way is the matter of tests/scripts/verify/test_chaos.py. Here each ends, with an answer
or with an error.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from pipeline.wire.topology import STAGES
from tests.server.launched import pid_is_gone, run_launcher, wait_until, write_config
from tests.server.supervised import Load, Supervised

IMPATIENT = ("pipeline.hang_timeout_s=1.5",)
MODELS = ("llama2", "first", "second")  # the base model, and adapters by their slots


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One server that survives every test of this module that takes it."""
    adapters = "pipeline.lora.adapters={first: emulated, second: emulated}"
    slow = "pipeline.runner.cost_model.fixed_ms=5"
    server = Supervised(tmp_path_factory.mktemp("shared"), (*IMPATIENT, slow, adapters))
    yield server
    server.stop()


# ---- death ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_is_killed_is_replaced_and_the_others_stay(shared, stage):
    shared.serves()
    before = shared.kill(stage)
    after = shared.stages()
    assert {name for name in STAGES if before[name] != after[name]} == {stage}
    assert f"{stage} (pid {before[stage]}) was killed by SIGKILL; restarting it" in shared.text_said
    shared.serves()
    assert shared.metric("ringserve_restarts_total", stage=stage) >= 1
    assert not shared.segments()


@pytest.mark.parametrize("stages", [("front", "inference"), ("preprocess", "sampling"), STAGES], ids="+".join)
def test_several_at_once(shared, stages):
    before = shared.kill(*stages)
    after = shared.stages()
    assert {name for name in STAGES if before[name] != after[name]} == set(stages)
    shared.serves()


def test_death_in_the_middle_of_work(shared):
    load = Load(shared)
    for stage in STAGES:
        shared.kill(stage)
    load.stop()
    assert load.statuses.count(200) > 0
    shared.serves()
    wait_until(lambda: shared.metric("ringserve_num_requests_running") == 0, "rows are not given back")
    assert shared.metric("ringserve_kv_blocks_used") == 0


def test_adapters_in_one_batch_go_on_as_each_alone(shared):
    """The same prompt with each, twice: what it has computed is found again by the same adapter alone."""
    prompt, count = "The same words stand before all of them, and blocks of them could be shared. " * 2, 300
    resumed = shared.metric("ringserve_requests_resumed_total")
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(shared.generate, prompt, count, model) for model in MODELS * 2]
        for stage in ("inference", "preprocess", "sampling"):
            wait_until(
                lambda: shared.metric("ringserve_num_requests_running") == 6 or any(one.done() for one in answers),
                "they do not run",
            )
            shared.kill(stage)
        texts = [answer.result().json()["generated_text"] for answer in answers]
    assert texts == [shared.text(prompt, count, adapter) for adapter in (0, 1, 2)] * 2
    assert shared.metric("ringserve_requests_resumed_total") > resumed
    for adapter, model in enumerate(MODELS):
        hits = []
        for _ in range(2):
            before = shared.metric("ringserve_prefix_cache_hits_total")
            answer = shared.generate("Only here: " + prompt, 9, model)
            assert answer.json()["generated_text"] == shared.text("Only here: " + prompt, 9, adapter)
            hits.append(shared.metric("ringserve_prefix_cache_hits_total") - before)
        assert hits[0] == 0 < hits[1]
    assert shared.metric("ringserve_adapter_requests_total", adapter="second") == 4


def test_no_counter_ever_goes_back(shared):
    """But those of rings and of processes, which are new."""
    new = ("ringserve_ring_", "ringserve_process_")

    def counted():
        return {name: value for name, value in shared.counters().items() if not name.startswith(new)}

    shared.serves()
    before = counted()
    assert len(before) > 20
    for stage in STAGES:
        shared.kill(stage)
        shared.serves()
        now = counted()
        assert {name: (before[name], now[name]) for name in before if now[name] < before[name]} == {}
        before = now


def test_descriptors_and_mappings_do_not_grow(shared):
    def usage():
        pids = shared.stages() | {"launcher": shared.process.pid}
        return {name: (descriptors(pid), mapped(pid)) for name, pid in pids.items()}

    for stage in STAGES:
        shared.kill(stage)
    shared.serves()
    before = usage()
    for stage in STAGES:
        shared.kill(stage)
    shared.serves()
    wait_until(lambda: usage() == before, lambda: f"{before} before, {usage()} now")


def descriptors(pid):
    """But for connections of clients and peers that are watched, which come and go."""
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed in this very moment
            links.append(str(link.readlink()))
    return sum(not link.startswith(("socket:", "anon_inode:[pidfd]")) for link in links)


def mapped(pid):
    """Segments in this process's memory."""
    return Path(f"/proc/{pid}/maps").read_text(encoding="ascii").count("/dev/shm/ringserve-")


# ---- hangs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_stands_still_though_it_has_work_is_replaced(shared, stage):
    load = Load(shared)
    recoveries, hangs = shared.recoveries, len(shared.lines(f"{stage} (pid ", "hangs"))
    pid = shared.signal(signal.SIGSTOP, stage)[stage]
    line = shared.log(f"{stage} (pid {pid}) hangs", count=1)
    assert "stopped (SIGSTOP)" in line
    shared.recover(recoveries)
    load.stop()
    assert shared.lines(f"{stage} (pid {pid}) was killed because it hung; restarting it")
    assert pid_is_gone(pid)
    assert len(shared.lines(f"{stage} (pid ", "hangs")) == hangs + 1  # and nobody else was blamed
    shared.serves()


def test_several_that_stand_still(shared):
    """Once the first is found out the others are, too: each has been still for as long."""
    load = Load(shared)
    before, recoveries = shared.stages(), shared.recoveries
    shared.signal(signal.SIGSTOP, "preprocess", "inference", "sampling")
    shared.recover(recoveries)
    load.stop()
    after = shared.stages()
    assert {name for name in STAGES if before[name] != after[name]} == {"preprocess", "inference", "sampling"}
    shared.serves()


def test_one_that_stands_still_without_work_when_another_dies(shared):
    """It is not waited for once more: it has been stopped for longer than anybody may be."""
    shared.serves()
    before, recoveries = shared.stages(), shared.recoveries
    shared.signal(signal.SIGSTOP, "sampling")
    time.sleep(2.5)
    assert shared.stages() == before
    shared.signal(signal.SIGKILL, "preprocess")
    line = shared.log(f"sampling (pid {before['sampling']}) hangs", count=1)
    assert "while it should be detaching from its rings" in line
    assert "stopped (SIGSTOP)" in line
    shared.recover(recoveries)
    shared.serves()


def test_a_front_that_stands_still_is_replaced_though_nobody_asks_anything(shared):
    recoveries = shared.recoveries
    pid = shared.signal(signal.SIGSTOP, "front")["front"]
    shared.recover(recoveries)
    assert shared.lines(f"front (pid {pid}) hangs", "event loop")
    shared.serves()


def test_a_stage_without_work_may_stand_still(shared):
    shared.serves()
    time.sleep(0.5)
    pids = shared.signal(signal.SIGSTOP, "inference", "sampling")
    time.sleep(3.5)
    shared.signal(signal.SIGCONT, "inference", "sampling")
    shared.serves()
    assert shared.stages() == pids


def test_a_launcher_that_was_stopped_blames_nobody(shared):
    """Time in which it did not run itself is no time in which others did not move."""
    load = Load(shared, tokens=400)
    pids = shared.stages()
    for _ in range(3):
        os.kill(shared.process.pid, signal.SIGSTOP)
        time.sleep(2.5)
        os.kill(shared.process.pid, signal.SIGCONT)
        time.sleep(0.1)
    load.stop()
    assert shared.stages() == pids


# ---- while it starts -----------------------------------------------------------------------------------------------


class Meddler:
    """Does something to a stage's process as soon as it is there, while the server of this directory starts."""

    def __init__(self, directory, stage, number):
        self.pid = None
        self._thread = threading.Thread(target=self._run, args=(str(directory), stage, number))
        self._thread.start()

    def _run(self, directory, stage, number):
        deadline = time.monotonic() + 60
        while self.pid is None and time.monotonic() < deadline:
            for launcher in processes("pipeline.launch", directory):
                for pid in children(launcher, stage):
                    self.pid = pid
                    os.kill(pid, number)
            time.sleep(0.01)

    def join(self):
        self._thread.join(60)


def processes(word, other):
    """Pids of those whose command line has both."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (process / "cmdline").read_bytes().decode()
            if word in line and other in line:
                yield int(process.name)


def children(launcher, stage):
    with contextlib.suppress(OSError):
        for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
            if f"-m\0pipeline.{stage}\0" in Path(f"/proc/{pid}/cmdline").read_bytes().decode():
                yield int(pid)


@pytest.mark.parametrize(
    ("stage", "number"),
    [("inference", signal.SIGKILL), ("front", signal.SIGKILL), ("sampling", signal.SIGSTOP)],
    ids=lambda value: getattr(value, "name", value),
)
def test_killed_or_stopped_while_it_loads(own, tmp_path, stage, number):
    meddler = Meddler(tmp_path, stage, number)
    server = own(*IMPATIENT)
    meddler.join()
    assert f"{stage} (pid {meddler.pid}) was " in server.text_said
    server.serves()


def test_a_stage_that_says_why_it_can_not_start_is_not_started_again(tmp_path):
    done = run_launcher(write_config(tmp_path), f"pipeline.save_logits_dir={tmp_path}/server.yaml/logits")
    assert done.returncode == 1
    assert "could not start: " in done.stderr
    assert "restarting" not in done.stderr
    assert "Traceback" not in done.stderr


# ---- limits --------------------------------------------------------------------------------------------------------


def test_what_dies_again_and_again_ends_the_server_with_a_report(own):
    server = own("pipeline.max_restarts=2")
    server.kill("inference")
    server.kill("sampling")
    pids = [server.kill("inference")["inference"]]
    pids += [server.signal(signal.SIGKILL, "inference")["inference"]]
    assert server.wait() == 1
    *_, last = server.text_said.rpartition("What happened:\n")
    assert [word for word in ("inference", "sampling") if f"{word} (pid " in last] == ["inference", "sampling"]
    assert all(f"inference (pid {pid}) was killed by SIGKILL" in last for pid in pids)
    assert "after 2 restarts in a row the server exits" in server.text_said
    assert not server.segments()


def test_work_in_between_begins_a_new_row(own):
    server = own("pipeline.max_restarts=1")
    for _ in range(3):
        server.kill("sampling")
        server.serves()


def test_a_front_that_was_well_each_time_may_be_lost_as_often_as_you_like(own):
    """No request need have come by in between."""
    server = own("pipeline.max_restarts=2")
    for _ in range(4):
        assert server.status("/health")[0] == 200
        time.sleep(2)  # its event loop runs for a while: as good as useful
        server.kill("front")
    server.serves()


# ---- what others see -----------------------------------------------------------------------------------------------


def test_health_names_the_stage_that_is_down(own):
    server = own("pipeline.max_restarts=3")
    assert server.status("/health")[0] == 200
    server.kill("inference")
    server.signal(signal.SIGKILL, "inference")  # the second in a row: it is left alone for half a second
    wait_until(lambda: "inference is restarting" in server.status("/health")[1], "it is not named", 60)
    assert server.status("/health")[0] == server.status("/ready")[0] == 503
    wait_until(lambda: server.status("/health")[0] == 200, "it is never well again", 60)
    server.wait_ready()


def test_generations_are_counted(shared):
    before = shared.metric("ringserve_generation")
    shared.kill("sampling")
    assert shared.metric("ringserve_generation") == before + 1
    for stage in ("inference", "sampling"):  # what they collect between two generations keeps nobody waiting
        assert shared.metric("ringserve_gc_pause_max_seconds", stage=stage) == 0


def test_an_idle_server_says_nothing_and_does_nothing(shared):
    said = len(shared.said)
    time.sleep(1)
    assert shared.said[said:] == []
