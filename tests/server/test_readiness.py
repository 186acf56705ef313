"""A whole server and what started it: a descriptor, and systemd's socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from scripts.lab.processes import children
from scripts.lab.server import launch_command
from tests.server.launched import write_config


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path)


def launch(config, *options, fds=(), **environment):
    return subprocess.Popen(
        [*launch_command(config), *options],
        pass_fds=fds,
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def test_it_drains_when_the_other_end_of_a_descriptor_is_closed(config):
    """While it starts, it ends at once."""
    for ready in (True, False):
        (read, write), (tied, tie) = os.pipe(), os.pipe()
        options = ("--ready-fd", str(write), "--exit-with-fd", str(tied))
        process = launch(config, *options, fds=[write, tied])
        os.close(write)
        os.close(tied)
        with os.fdopen(read) as reader:
            assert not ready or reader.readline()
        os.write(tie, b"says nothing")
        os.close(tie)
        _, said = process.communicate(timeout=30)
        assert process.returncode in ((0,) if ready else (0, -signal.SIGTERM))
        assert (b"draining" in said) == ready


def test_ready_reload_stop(config, tmp_path):
    read, write = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, os.fdopen(read) as reader:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        process = launch(
            config, "--set", "pipeline.metrics_port=0", "--ready-fd", str(write), fds=[write],
            NOTIFY_SOCKET=str(tmp_path / "notify"),
        )  # fmt: skip
        os.close(write)
        try:
            (line,) = reader.readlines()  # the end comes: no stage holds the descriptor
            urls = json.loads(line)
            assert httpx.get(f"{urls['api'][0]}/ready").status_code == 200
            assert "ringserve_" in httpx.get(f"{urls['metrics'][0]}/metrics").text
            assert systemd.recv(4096).decode() == f"READY=1\nSTATUS=listening on {urls['api'][0]}"
            process.send_signal(signal.SIGHUP)
            assert systemd.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert systemd.recv(4096) == b"READY=1"
            for child in children(process.pid):
                assert b"NOTIFY_SOCKET" not in Path(f"/proc/{child}/environ").read_bytes()
            process.send_signal(signal.SIGTERM)
            assert systemd.recv(4096) == b"STOPPING=1"
            process.communicate(timeout=30)
            assert process.returncode == 0
        finally:
            process.kill()
            process.communicate()


def test_a_start_that_fails_ends_the_line(config):
    read, write = os.pipe()
    process = launch(config, "--set", "pipeline.hosts=192.0.2.1", "--ready-fd", str(write), fds=[write])
    os.close(write)
    with os.fdopen(read) as reader:
        assert reader.read() == ""
    assert b"can't listen on" in process.communicate(timeout=30)[1]
    assert process.returncode == 1
