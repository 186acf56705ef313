"""Log lines, with and without somebody who reads them."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import pty
import socket

import pytest

from pipeline.runtime.logs import ROOT, configure_logging
from pipeline.runtime.nonblocking_stderr import NonblockingStderr

LINE = b"x" * 99 + b"\n"


@pytest.fixture(params=["pipe", "socket", "terminal", "file"])
def ends(request, tmp_path):
    """A descriptor to write to and one to read from, and whether it fills up."""
    if request.param == "pipe":
        read, write = os.pipe()
    elif request.param == "socket":
        read, write = (end.detach() for end in socket.socketpair())
    elif request.param == "terminal":
        read, write = pty.openpty()
    else:
        path = tmp_path / "log"
        write = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        read = os.open(path, os.O_RDONLY)
    yield write, read, request.param != "file"
    os.close(read)
    os.close(write)


def drain(fd):
    os.set_blocking(fd, False)
    parts = []
    try:
        while part := os.read(fd, 1 << 16):
            parts.append(part)
    except BlockingIOError:
        pass
    return b"".join(parts).replace(b"\r\n", b"\n")


def test_nobody_is_waited_for_and_lines_stay_whole(ends):
    write, read, fills = ends
    flags = fcntl.fcntl(write, fcntl.F_GETFL)
    outlet = NonblockingStderr(write)
    outcomes = [outlet.write(LINE) for _ in range(20_000)]
    assert outcomes[0]
    assert fills == (not all(outcomes))
    since = outcomes[::-1].index(True)  # a terminal may find some room again by itself
    assert outlet.dropped == since
    got = b""
    while not outlet.write(b"last\n"):  # what was left of a line comes first
        got += drain(read)
    while not got.endswith(b"last\n"):
        got += drain(read)
    lines = got.splitlines(keepends=True)
    assert set(lines) == {LINE, b"last\n"}
    assert len(lines) == sum(outcomes) + 1
    assert outlet.dropped == 0
    assert fcntl.fcntl(write, fcntl.F_GETFL) == flags  # whoever shares it finds it as it was
    outlet.close()


def test_a_reader_that_is_gone(tmp_path):
    read, write = os.pipe()
    outlet = NonblockingStderr(write)
    os.close(read)
    assert not outlet.write(LINE)
    os.close(write)
    closed = NonblockingStderr(write)
    assert not closed.write(LINE)
    outlet.close()
    closed.close()


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_was_dropped_is_told(form):
    read, write = os.pipe()
    saved = os.dup(2)
    root = logging.getLogger(ROOT)
    before = root.handlers, root.propagate, root.level
    os.dup2(write, 2)
    try:
        log = configure_logging("front", form=form)
        for i in range(5000):
            log.info("line %d", i)
        first = drain(read)
        log.info("again")
        second = drain(read)
    finally:
        os.dup2(saved, 2)
        root.handlers[0]._stderr.close()
        root.handlers, root.propagate = before[:2]
        root.setLevel(before[2])
        for fd in (read, write, saved):
            os.close(fd)
    kept = first.count(b"line ")
    assert 0 < kept < 5000
    told, again = second.splitlines()[-2:]
    assert b"%d log lines were dropped: standard error was not read" % (5000 - kept) in told
    assert b"again" in again
    if form == "json":
        assert json.loads(told)["level"] == "warning"
