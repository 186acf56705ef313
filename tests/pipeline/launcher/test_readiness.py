"""What a starter and systemd hear, over a real pipe and a real socket."""

from __future__ import annotations

import json
import os
import socket

import pytest

from pipeline.launcher.readiness import NOTIFY_SOCKET, Readiness

API, METRICS = ["http://127.0.0.1:8000", "http://[::1]:8000"], ["http://127.0.0.1:9000"]


@pytest.fixture
def pipe():
    read, write = os.pipe()
    yield read, write
    os.close(read)


@pytest.mark.parametrize("form", ["path", "abstract"])
def test_systemd_hears_each_state(tmp_path, form):
    address = str(tmp_path / "notify") if form == "path" else f"@ringserve-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address.replace("@", "\0", 1))
        systemd.settimeout(10)
        readiness = Readiness.from_environment(None, {NOTIFY_SOCKET: address})
        readiness.ready(API, METRICS)
        readiness.status("front was killed by SIGKILL; restarting it")
        readiness.reloading()
        readiness.reloaded()
        readiness.stopping()
        heard = [systemd.recv(4096).decode().split("\n") for _ in range(5)]
    assert heard[0] == ["READY=1", f"STATUS=listening on {', '.join(API)}"]
    assert heard[1] == ["STATUS=front was killed by SIGKILL; restarting it"]
    assert heard[2][0] == "RELOADING=1"
    assert heard[2][1].removeprefix("MONOTONIC_USEC=").isdecimal()
    assert heard[3:] == [["READY=1"], ["STOPPING=1"]]


def test_a_starter_gets_one_line_and_the_end(pipe):
    read, write = pipe
    readiness = Readiness(write)
    readiness.ready(API, METRICS)
    readiness.close()
    with os.fdopen(read, closefd=False) as reader:
        lines = reader.readlines()
    assert [json.loads(line) for line in lines] == [{"api": API, "metrics": METRICS}]


def test_a_node_says_where_routers_link_to(pipe):
    read, write = pipe
    Readiness(write).ready([], METRICS, ["127.0.0.1:8836"])
    assert json.loads(os.read(read, 1000)) == {"api": [], "metrics": METRICS, "links": ["127.0.0.1:8836"]}


def test_a_server_that_is_never_ready_ends_the_line_without_one(pipe):
    read, write = pipe
    Readiness(write).close()
    assert os.read(read, 100) == b""


def test_stages_do_not_inherit_the_descriptor(pipe):
    _, write = pipe
    os.set_inheritable(write, True)
    readiness = Readiness(write)
    assert not os.get_inheritable(write)
    readiness.close()


def test_whoever_does_not_listen_changes_nothing(tmp_path):
    read, write = os.pipe()
    os.close(read)
    readiness = Readiness(write, str(tmp_path / "nobody"))
    readiness.ready(API, METRICS)
    readiness.stopping()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(write)
