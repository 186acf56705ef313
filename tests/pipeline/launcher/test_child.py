"""A process, as the launcher sees it: what it says, how it ends, and what is made of that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from pipeline.launcher.child import Child
from pipeline.launcher.process_stat import process_stat
from pipeline.runtime.control_channel import Channel, ChannelError
from pipeline.runtime.generations import CRASHED, HUNG, KILLED
from pipeline.wire.topology import INFERENCE, ONE_OF_EACH


@pytest.fixture
def start():
    """A child that does what its code says; and the other end of its channel."""
    made = []

    def of(code):
        channel, theirs = Channel.pair()
        process = subprocess.Popen([sys.executable, "-c", code])
        made.append(Child(ONE_OF_EACH.find(INFERENCE), [0], process, channel))
        return made[-1], Channel(theirs)

    yield of
    for child in made:
        child.signal(signal.SIGKILL)


def test_what_it_says_and_that_it_says_nothing_more(start):
    child, theirs = start("")
    theirs.send("progress", what="loading", done=1, total=2)
    theirs.send("waiting")
    assert [message.event for message in child.messages()] == ["progress", "waiting"]
    assert child.heard == 2
    theirs.close()
    assert list(child.messages()) == []
    assert child.channel is None
    with pytest.raises(ChannelError, match=r"inference \(pid \d+\) has closed its control channel"):
        child.send("drain")
    child.reap()


@pytest.mark.parametrize(
    ("code", "status", "how", "text"),
    [
        ("raise SystemExit(0)", 0, KILLED, "exited with status 0"),
        ("raise SystemExit(3)", 3, CRASHED, "exited with status 3: no memory"),
        ("import os; os.kill(os.getpid(), 9)", -9, KILLED, "was killed by SIGKILL"),
        ("import os; os.abort()", -6, CRASHED, "was killed by SIGABRT"),
        ("import os; os.kill(os.getpid(), 40)", -40, KILLED, "was killed by "),
    ],
)
def test_how_it_ended(start, code, status, how, text):
    child, theirs = start(code)
    theirs.close()
    child.why = "no memory" if status == 3 else ""
    child.wait(time.monotonic() + 60)
    assert child.dead
    assert child.reap() == status
    assert child.how(status) == how
    assert child.describe(status).startswith(text)


def test_error_codes_of_the_device_are_explained(start):
    child, theirs = start("raise SystemExit(1)")
    theirs.close()
    child.why = "RuntimeError: launch failed, error code is 507015"
    child.wait(time.monotonic() + 60)
    what = child.describe(child.reap())
    assert what.startswith(
        "exited with status 1: RuntimeError: launch failed, error code is 507015\n  507015: an AI core"
    )


def test_one_that_does_not_end_in_time_is_killed(start):
    child, theirs = start("import time; time.sleep(100)")
    theirs.close()
    assert not child.dead
    child.ended_as = HUNG
    child.wait(time.monotonic())
    status = child.reap()
    assert (status, child.how(status), child.describe(status)) == (-9, HUNG, "was killed because it hung")


def test_progress_is_a_line_when_the_work_changes(start, capfd):
    child, theirs = start("")
    for what, done in (("loading", 1), ("loading", 2), ("compiling", 1)):
        child.show(what, done, 2)
    assert capfd.readouterr().err.splitlines() == [
        "ringserve: inference: loading 1 of 2",
        "ringserve: inference: compiling 1 of 2",
    ]
    theirs.close()
    child.wait(time.monotonic() + 60)
    child.reap()


def test_what_the_kernel_says_of_a_process():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    try:
        assert process_stat(process.pid).stopped is False
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert process_stat(process.pid).stopped is True
    finally:
        process.kill()
        process.wait()
    assert process_stat(process.pid) is None


def test_a_bar_on_a_terminal(start, monkeypatch):
    child, theirs = start("")
    theirs.close()
    drawn = []
    monkeypatch.setattr("pipeline.launcher.child.os.isatty", lambda fd: True)
    monkeypatch.setattr("pipeline.launcher.child.write_stderr", drawn.append)
    for done in range(4):
        child.show("compiling", done, 3)
    child.reap()
    assert drawn[1] == "\r\033[Kringserve: inference: compiling [########................] 1 of 3"
    assert drawn[0].count("#") == 0
    assert drawn[3].endswith("[########################] 3 of 3\n")
