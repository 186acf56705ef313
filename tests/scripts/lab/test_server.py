"""A RingServe that is started for a measurement."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from pipeline.wire.topology import STAGES
from scripts.lab.errors import ServerError
from scripts.lab.processes import children, lives
from scripts.lab.server import ReadyPipe, launched, read_metrics
from tests.server.launched import write_config


def test_what_is_seen_of_one_that_serves(tmp_path):
    with launched(write_config(tmp_path), ("pipeline.max_rows=3",), tmp_path / "log") as server:
        assert server.status is None
        assert server.ready_s > 0
        assert f"listening on {server.base_url}" in server.log_text()
        processes = server.processes()
        assert processes == {"launcher": server.pid, **server.stages()}
        assert set(server.stages()) == set(STAGES)
        assert sorted(server.stages().values()) == sorted(children(server.pid))
        assert read_metrics(server.base_url)["ringserve_max_rows"] == 3
        assert (server.restarts(), server.under_way(10)) == (0, {})
        assert server.stop() == 0
    assert not any(map(lives, processes.values()))
    assert server.stages() == {}
    with pytest.raises(OSError, match="refused"):
        server.metrics()


def test_one_that_does_not_start_is_told_with_its_words(tmp_path):
    starting = launched(write_config(tmp_path), ("pipeline.hosts=192.0.2.1",), tmp_path / "log")
    with pytest.raises(ServerError, match=r"ended with status 1(.|\n)*192.0.2.1"), starting:
        pytest.fail("it is not there")


@pytest.mark.parametrize(
    ("code", "url"),
    [
        ('import os, sys; os.write(int(sys.argv[2]), b\'{"api": ["http://x:1", "http://y:1"]}\\n\')', "http://x:1"),
        ("", None),
        ("import time; time.sleep(600)", None),
    ],
    ids=["ready", "ended", "neither"],
)
def test_what_the_pipe_says(code, url):
    with ReadyPipe() as pipe:
        process = subprocess.Popen([sys.executable, "-c", code, *pipe.options], pass_fds=pipe.fds)
        with process:
            assert pipe.wait(process, time.monotonic() + (2 if "600" in code else 60)) == url
            if not code:
                assert process.poll() == 0
            process.kill()
