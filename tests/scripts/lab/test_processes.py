"""Servers that are started for a measurement: found, measured, and ended whatever ends the measurement."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from scripts.lab.errors import BenchError
from scripts.lab.processes import descendants, started
from tests.server.launched import pid_is_gone, wait_until

# a server with a child; says when both are there, ends when told
SERVER = """
import subprocess, sys, time
CHILD = "import time; memory = bytes(range(256)) * (1 << 18); print('ready', flush=True); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE)
child.stdout.readline()
print("listening", child.pid, flush=True)
time.sleep(600)
"""


def listening(said):
    return "http://x" if "listening" in said else None


def test_a_server_is_measured_with_its_children_and_ended_with_them(tmp_path):
    with started([sys.executable, "-c", SERVER], tmp_path / "log", listening, timeout_s=60) as server:
        child = int((tmp_path / "log").read_text().split()[1])
        assert descendants(server.pid) == [server.pid, child]
        memory = server.memory()
        assert 64 << 20 <= memory.pss <= memory.rss
        assert server.cpu_s() > 0
        assert server.ready_s > 0
        assert server.base_url == "http://x"
    assert pid_is_gone(server.pid)
    wait_until(lambda: pid_is_gone(child), "its child outlives it")


def test_memory_and_time_of_what_is_gone_are_nothing(tmp_path):
    with started([sys.executable, "-c", SERVER], tmp_path / "log", listening, timeout_s=60) as server:
        pass
    assert (server.memory().rss, server.memory().pss, server.cpu_s()) == (0, 0, 0.0)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("print('no memory'); raise SystemExit(3)", ["ended with status 3", "no memory"]),
        ("import time; print('thinking', flush=True); time.sleep(600)", ["did not become ready in time", "thinking"]),
    ],
)
def test_a_server_that_does_not_come_up_is_told_with_its_words(tmp_path, code, words):
    starting = started([sys.executable, "-c", code], tmp_path / "log", listening, timeout_s=2)
    with pytest.raises(BenchError) as error, starting:
        pytest.fail("it is not there")
    for word in words:
        assert word in str(error.value)


def test_a_server_that_ends_by_itself_is_noticed(tmp_path):
    code = "import time; print('listening', flush=True); time.sleep(600)"
    with started([sys.executable, "-c", code], tmp_path / "log", listening, timeout_s=60) as server:
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(BenchError, match="ended with status -9"):
            server.require_alive(patience_s=10)


MEASUREMENT = """
import sys, time
from pathlib import Path
from scripts.lab.processes import exit_when_told, started
exit_when_told()
with started([sys.executable, "-c", {server!r}], Path({log!r}),
             lambda said: "x" if "listening" in said else None, timeout_s=60) as running:
    print(running.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_no_server_outlives_its_measurement(tmp_path, number):
    code = MEASUREMENT.format(server=SERVER, log=str(tmp_path / "log"))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with process:
        pid = int(process.stdout.readline())
        child = int((tmp_path / "log").read_text().split()[1])
        process.send_signal(number)
        process.wait(60)
        wait_until(lambda: pid_is_gone(pid), "the server outlives its measurement")
        if number == signal.SIGKILL:
            os.kill(child, signal.SIGKILL)  # a server's children are its own to end
        wait_until(lambda: pid_is_gone(child), "its child does")
