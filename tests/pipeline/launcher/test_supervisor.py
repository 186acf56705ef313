"""The launcher from start to end, in the test's own process: its stages are real, and so is what happens to them.

One server for everything that one can take one after the other; tests/server has what needs one of its own.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from model.demo import DEMO_DIR
from pipeline import launch
from pipeline.launcher.readiness import NOTIFY_SOCKET
from tests.server.launched import CONFIG, wait_until

WAIT_S = 60


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.delenv(NOTIFY_SOCKET, raising=False)
    path = tmp_path / "server.yaml"
    path.write_text(CONFIG.replace("TOKENIZER", str(Path(DEMO_DIR) / "tokenizer.json")))
    return path


class User(threading.Thread):
    """Does with the server what a test wants, while the main thread runs the launcher, and ends it at last."""

    def __init__(self, path, work):
        super().__init__()
        self._path, self._work = path, work
        self._stack = ExitStack()
        read, self.ready_fd = os.pipe()
        self._read = self._stack.enter_context(os.fdopen(read))
        self.failure = None
        self.over = threading.Event()  # the launcher has ended

    def run(self):
        try:
            self._work(self)
        except BaseException as failure:  # noqa: BLE001 - for the main thread
            self.failure = failure
        finally:
            while not self.over.is_set():
                self.signal(signal.SIGTERM)
                self.over.wait(5)

    def signal(self, number):
        if not self.over.is_set():
            os.kill(os.getpid(), number)

    def wait_ready(self):
        line = self._read.readline()
        assert line, "it ended before it was ready"
        addresses = json.loads(line)
        self.http = self._stack.enter_context(httpx.Client(base_url=addresses["api"][0], timeout=WAIT_S))
        self.metrics = addresses["metrics"]

    def figure(self, name):
        lines = httpx.get(f"{self.metrics[0]}/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + " ", name + "{")))

    def complete(self, **body):
        return self.http.post("/v1/completions", json={"prompt": "Where?", "max_tokens": 8, "temperature": 0, **body})

    def rewrite(self, old, new):
        self._path.write_text(self._path.read_text().replace(old, new))

    def serve(self, *overrides):
        """Exit status of a whole run."""
        sets = [part for override in overrides for part in ("--set", override)]
        before = signal.signal(signal.SIGTERM, lambda *_: None)  # one may come when the launcher has just ended
        self.start()
        try:
            status = launch.main(["--config", str(self._path), "--ready-fd", str(self.ready_fd), *sets])
        finally:
            self.over.set()
            self.join(WAIT_S)
            self._stack.close()
            signal.signal(signal.SIGTERM, before)
        if self.failure is not None:
            raise self.failure
        return status


def children(stage):
    """Pids of this process's children that run the stage."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            parent = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        if parent == os.getpid() and f"pipeline.{stage}".encode() in words:
            found.append(int(process.name))
    return found


def test_it_serves_restarts_reloads_and_drains(path, capfd):
    def work(user):
        user.wait_ready()
        whole = user.complete().json()["choices"][0]["text"]
        sampled = user.complete(temperature=1, seed=3, logprobs=2)
        assert sampled.status_code == 200
        for stage in ("inference", "preprocess", "sampling"):
            (before,) = children(stage)
            generation = user.figure("ringserve_generation")
            os.kill(before, signal.SIGKILL)
            wait_until(lambda: user.figure("ringserve_generation") > generation, f"{stage} is replaced", WAIT_S)  # noqa: B023
            assert user.complete().json()["choices"][0]["text"] == whole
            assert children(stage) != [before]
        user.rewrite("drain_timeout_s: 10", "max_queue: 7")
        user.signal(signal.SIGHUP)
        wait_until(lambda: "pipeline.max_queue = 7" in said(), lambda: "".join(heard), WAIT_S)
        user.rewrite("max_queue: 7", "max_queue: many")
        user.signal(signal.SIGHUP)
        wait_until(lambda: "was not reloaded" in said(), lambda: "".join(heard), WAIT_S)
        assert user.complete().json()["choices"][0]["text"] == whole

    heard = []

    def said():
        heard.append(capfd.readouterr().err)
        return "".join(heard)

    assert User(path, work).serve("pipeline.metrics_port=0", "pipeline.hosts=[127.0.0.1]") == 0
    text = said()
    for words in ("ready after", "listening on", "try: curl", "was killed by SIGKILL", "serving again", "draining"):
        assert words in text, words
    assert not any(children(stage) for stage in ("front", "preprocess", "inference", "sampling"))


def test_what_dies_again_and_again_ends_the_server_with_a_report(path, capfd):
    def work(user):
        user.wait_ready()
        (pid,) = children("sampling")
        os.kill(pid, signal.SIGKILL)
        user.over.wait(WAIT_S)

    assert User(path, work).serve("pipeline.max_restarts=0") == 1
    text = capfd.readouterr().err
    assert "after 0 restarts in a row the server exits. What happened:" in text
    assert "sampling (pid" in text


def test_a_stage_that_says_why_it_can_not_start(path, capfd, tmp_path):
    def work(user):
        user.over.wait(WAIT_S)

    (tmp_path / "logits").write_text("a file, and no directory")
    assert User(path, work).serve(f"pipeline.save_logits_dir={tmp_path / 'logits' / 'below'}") == 1
    assert "could not start" in capfd.readouterr().err


def test_interrupted_while_it_starts(path, capfd):
    def work(user):
        wait_until(lambda: children("inference"), "a stage has been started", WAIT_S)
        user.signal(signal.SIGINT)
        user.over.wait(WAIT_S)

    assert User(path, work).serve() == 0
    assert "interrupted while starting" in capfd.readouterr().err
