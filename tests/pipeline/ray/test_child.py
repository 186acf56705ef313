"""A real server, tied to this process and to another one that is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from pipeline.ray.child import Child, ChildError, free_port, load_of
from scripts.lab.processes import lives
from tests.server.launched import write_config

TIED = """
import sys, time
from pipeline.ray.child import Child
child = Child(sys.argv[1:])
child.wait_ready(60)
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def arguments(tmp_path):
    return ["--config", str(write_config(tmp_path)), "--set", "pipeline.metrics_port=0"]


def test_it_is_watched_and_ends(arguments):
    child = Child(arguments)
    told = child.wait_ready(60)
    assert told["api"]
    assert told["metrics"] == [child.operators]
    child.check(0)
    assert load_of(child.metrics(), 0.8) == 0.0
    with pytest.raises(ChildError, match="PUT /nowhere: HTTP Error 404"):
        child.ask("/nowhere", {})
    child.told = {"metrics": ["http://127.0.0.1:1"]}  # nobody answers there
    child.check(60)  # its launcher may mend that
    with pytest.raises(ChildError, match="GET /health: "):
        child.check(0)
    assert child.end(30) == 0
    assert child.end(30) == 0
    with pytest.raises(ChildError, match="has ended: exit status 0"):
        child.check(60)


def test_one_that_can_not_start_says_so(arguments):
    child = Child([*arguments, "--set", "pipeline.max_rows=none"])
    with pytest.raises(ChildError, match="could not start: exit status 2"):
        child.wait_ready(60)
    child.end(1)


def test_one_that_can_not_be_started_leaves_no_descriptor(monkeypatch):
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(sys, "executable", "/nowhere")
    with pytest.raises(FileNotFoundError):
        Child([])
    assert os.listdir("/proc/self/fd") == before


def test_a_port_is_free_when_nobody_listens_there():
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [each.getsockname()[1] for each in (one, other)]
        assert free_port("127.0.0.1", ports) is None
        other.close()
        assert free_port("127.0.0.1", ports) == ports[1]


def test_it_ends_with_whoever_started_it(arguments):
    """Who has no time to say so."""
    parent = subprocess.Popen([sys.executable, "-c", TIED, *arguments], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while lives(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
