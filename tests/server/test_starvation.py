"""A server that lacks something: a clear error at start, or slower service, and never a hang."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.namespaces import with_shared_memory
from tests.server.launched import Attempt, wait_until

HERE = Path(__file__).parent


# ---- CPUs --------------------------------------------------------------------------------------------------------


def test_one_cpu_and_a_busy_neighbour_on_it(own):
    """Everybody on the same CPU as somebody who never sleeps: slower, and right."""
    mine = os.sched_getaffinity(0)
    cpu = min(mine)
    os.sched_setaffinity(0, {cpu})
    try:
        neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            server = own()
            assert all(os.sched_getaffinity(pid) == {cpu} for pid in server.stages().values())
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                texts = list(pool.map(lambda i: server.generate(f"crowd {i}", 20).json()["generated_text"], range(8)))
            assert texts == [server.text(f"crowd {i}", 20) for i in range(8)]
            assert server.end() == 0
        finally:
            neighbour.kill()
            neighbour.wait()
    finally:
        os.sched_setaffinity(0, mine)


# ---- memory ------------------------------------------------------------------------------------------------------


def memfds_of(attempt, stage):
    """Segments that the stage has mapped and that are not in /dev/shm. A front's vocabulary and journal never are."""
    maps = Path(f"/proc/{attempt.stages()[stage]}/maps").read_text()
    return len(re.findall("/memfd:ringserve-(?!vocabulary|log-)", maps))


def test_a_small_shared_memory_is_not_used(tmp_path):
    """Less than is needed: the rings are memfds, in each generation."""
    with Attempt(tmp_path, command=with_shared_memory("size=11m")) as attempt:
        assert attempt.outcome() == "ready"
        assert (
            "12.9 MiB of shared memory will be memfds: /dev/shm is too small, 11.0 MiB are free" in attempt.text_said
        )
        assert "/dev/shm has 11 MiB in all" in attempt.text_said
        for stage in ("inference", "sampling"):
            assert memfds_of(attempt, stage) >= 3
            assert attempt.tokens("small", 5) == 5
            attempt.kill(stage)
        assert attempt.tokens("small", 5) == 5
        assert attempt.end() == 0


def test_too_little_memory_is_told_at_start(tmp_path):
    """More than any machine has: nothing is made, and nothing is loaded."""
    rows = ("model_config.vocab_size=100000000", "pipeline.runner.token_range=[300, 2048]", "pipeline.max_rows=4096")
    sizes = ("pipeline.token_budget=4096", "pa_config.num_blocks=8192", "pipeline.rings.logits_slots=64")
    with Attempt(tmp_path, *rows, *sizes) as attempt:
        assert attempt.outcome() == 1
        said = r"RingServe can't start: [0-9.]+ MiB of shared memory are needed, [0-9.]+ MiB are free \([^)]+\); \w+"
        assert re.search(said, attempt.text_said)


def test_as_much_shared_memory_as_is_said_to_be_needed_is_enough(tmp_path):
    """For restarts, too: rings of the next generation take the place of the last one's."""
    with Attempt(tmp_path, command=with_shared_memory("size=13m")) as attempt:
        assert attempt.outcome() == "ready"
        assert attempt.tokens("small", 5) == 5
        for stage in ("inference", "sampling", "front"):
            attempt.kill(stage)
            assert attempt.tokens("after", 5) == 5
            assert memfds_of(attempt, stage) == 0
        assert attempt.end() == 0


def test_shared_memory_that_somebody_else_takes_meanwhile(tmp_path):
    """Between two generations their memory is free for a moment. The next one's is elsewhere."""
    with Attempt(tmp_path, command=with_shared_memory("size=16m")) as attempt:
        assert attempt.outcome() == "ready"
        assert memfds_of(attempt, "inference") == 0
        with (Path(f"/proc/{attempt.launcher}/root/dev/shm") / "greedy").open("wb", buffering=0) as greedy:
            os.kill(attempt.stages()["inference"], signal.SIGKILL)
            while "serving again" not in attempt.text_said:
                with contextlib.suppress(OSError):  # no room now; soon there will be
                    greedy.write(bytes(1 << 20))
        assert memfds_of(attempt, "inference") >= 3
        assert attempt.tokens("after", 5) == 5
        assert attempt.end() == 0


def test_memory_that_runs_out_between_generations(tmp_path):
    """A limit on what it may allocate stands in for that. The server tries again, and says why it ends."""
    with Attempt(tmp_path, "pipeline.max_restarts=2") as attempt:
        assert attempt.outcome() == "ready"
        resource.prlimit(attempt.launcher, resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))
        os.kill(attempt.stages()["inference"], signal.SIGKILL)
        attempt.process.wait(60)
        assert attempt.process.returncode == 1
        assert re.search(r"segment '\w+' needs [0-9.]+ MiB of shared memory, [0-9.]+ MiB are free", attempt.text_said)
        assert "What happened:" in attempt.text_said


@pytest.mark.parametrize("mebibytes", [100, 125])
def test_little_address_space(tmp_path, mebibytes):
    """Whatever is refused to whichever process: an error that says so, or service."""
    limit = ["prlimit", f"--as={mebibytes << 20}"]
    with Attempt(tmp_path, command=limit) as attempt:
        outcome = attempt.outcome()
        if outcome == "ready":
            assert attempt.tokens("small", 5) == 5
            assert attempt.end() == 0
        else:
            assert outcome == 1
            assert re.search(r"could not start|can't start|memory allocation of \d+ bytes failed", attempt.text_said)
            assert re.search(r"address space is limited|may map", attempt.text_said)
    assert mebibytes > 100 or outcome == 1


# ---- descriptors -------------------------------------------------------------------------------------------------


def test_a_low_limit_of_descriptors_is_raised(own):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        server = own("pipeline.max_connections=300")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    host, port = server.base.removeprefix("http://").split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(250):
            stack.enter_context(socket.create_connection((host, int(port))))
        assert server.generate("many", 5).json()["generated_text"] == server.text("many", 5)


def test_a_hard_limit_of_descriptors_is_told_at_start(tmp_path):
    with Attempt(tmp_path, command=["prlimit", "--nofile=700:700"]) as attempt:
        assert attempt.outcome() == 1
        assert "1513 file descriptors are needed, 700 are allowed" in attempt.text_said
        assert "lower pipeline.max_connections to at most 187" in attempt.text_said


def soft_limit_of_descriptors(pid):
    return resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]


def test_more_connections_by_a_reload(tmp_path):
    """The front's limit follows, as far as it may; beyond that nothing changes."""
    with Attempt(tmp_path, command=["prlimit", "--nofile=100:1600"]) as attempt:
        assert attempt.outcome() == "ready"
        front = attempt.stages()["front"]
        assert soft_limit_of_descriptors(front) == 1513
        attempt.reload("max_connections: 1050")
        wait_until(lambda: soft_limit_of_descriptors(front) == 1563, lambda: attempt.text_said)
        said = "configuration reloaded: pipeline.max_connections = 1050"
        wait_until(lambda: said in attempt.text_said, lambda: attempt.text_said)
        attempt.reload("max_connections: 1600")
        wait_until(lambda: "was not reloaded, nothing has changed" in attempt.text_said, lambda: attempt.text_said)
        assert "2113 file descriptors are needed, 1600 are allowed" in attempt.text_said
        assert "lower pipeline.max_connections to at most 1087" in attempt.text_said
        assert soft_limit_of_descriptors(front) == 1563
        assert attempt.tokens("still", 5) == 5


def test_descriptors_that_run_out_later(own):
    """Connections that can't be taken are dropped or wait; those that are there are served, and all is well after."""
    server = own()
    host, port = server.base.removeprefix("http://").split(":")
    front = server.stages()["front"]
    assert server.client.get("/health").status_code == 200  # its connection stays
    held = len(os.listdir(f"/proc/{front}/fd"))
    soft, hard = resource.prlimit(front, resource.RLIMIT_NOFILE)
    resource.prlimit(front, resource.RLIMIT_NOFILE, (held + 10, hard))
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(socket.create_connection((host, int(port))))
        body = {"inputs": "still", "parameters": {"max_new_tokens": 5}}
        for _ in range(3):
            answer = server.client.post("/models/llama2/generate", json=body)
            assert answer.json()["generated_text"] == server.text("still", 5)
    resource.prlimit(front, resource.RLIMIT_NOFILE, (soft, hard))
    wait_until(lambda: served(server), "nobody is served any more", 20)
    assert server.end() == 0


def served(server):
    with contextlib.suppress(OSError, http.client.HTTPException, httpx.HTTPError):
        return server.generate("after", 5).status_code == 200
    return False


# ---- clocks ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def jumping_clock(tmp_path_factory):
    """A library that makes the wall clock jump, and how to tell it by how far."""
    directory = tmp_path_factory.mktemp("clock")
    library, file = directory / "jump.so", directory / "jump"
    subprocess.run(
        ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(HERE / "jump_clock.c")], check=True, timeout=60
    )

    def jump(seconds):
        file.write_bytes(struct.pack("<q", seconds))

    jump(0)
    return library, file, jump


def test_a_wall_clock_that_jumps(own, jumping_clock, monkeypatch):
    """A day forward and two back, under streams: no time-out fires and none is put off, no text is harmed."""
    library, file, jump = jumping_clock
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("JUMP_FILE", str(file))
    server = own("pipeline.request_timeout_s=60", "pipeline.keep_alive_s=1", "pipeline.runner.cost_model.fixed_ms=5")
    monkeypatch.delenv("LD_PRELOAD")
    created = [created_by(server)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        running = [pool.submit(server.generate, f"clock {i}", 200) for i in range(4)]
        wait_until(lambda: server.metric("ringserve_num_requests_running") == 4, "they do not run")
        for seconds in (86400, -172800, 0):
            jump(seconds)
            created.append(created_by(server))
            time.sleep(0.1)
        for i, answer in enumerate(running):
            assert answer.result().json()["generated_text"] == server.text(f"clock {i}", 200)
    assert created[1] - created[0] > 80000 > created[2] - created[0]  # the server did see it
    jump(-86400)
    host, port = server.base.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as idle:
        assert idle.recv(1) == b""  # closed after a second of its own, whatever the wall clock says
    jump(86400)
    assert server.generate("after", 5).json()["generated_text"] == server.text("after", 5)
    assert server.end() == 0


def created_by(server):
    """The wall clock as the front sees it."""
    answer = server.client.post("/v1/completions", json={"prompt": "x", "max_tokens": 1})
    return answer.json()["created"]


# ---- whoever reads the log ---------------------------------------------------------------------------------------


def test_a_log_that_nobody_reads(own, tmp_path):
    """Far more lines than a pipe holds: they are dropped, told of when somebody reads again, and stop nobody."""
    os.mkfifo(tmp_path / "log")
    log = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    server = own("pipeline.runner.cost_model.fixed_ms=0", log=tmp_path / "log")
    host, port = server.base.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    body = json.dumps({"inputs": "x", "parameters": {"max_new_tokens": 1}})  # a line each
    with contextlib.closing(connection):
        for _ in range(900):
            connection.request("POST", "/models/llama2/generate", body)
            assert connection.getresponse().read()
    assert server.generate("still here", 5).json()["generated_text"] == server.text("still here", 5)
    lines = len(os.read(log, 1 << 20).splitlines())
    assert lines < 900
    server.generate("again", 1)
    wait_until(lambda: "log lines were dropped" in rest(log), "nothing is told of them")
    assert server.end() == 0
    os.close(log)


def rest(fd):
    with contextlib.suppress(BlockingIOError):
        return os.read(fd, 1 << 20).decode()
    return ""
