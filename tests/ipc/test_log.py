"""The log that outlives its writer: whole records, whenever that is killed; the other half in place of a full one."""

from __future__ import annotations

import itertools
import mmap
import os
import random
import signal
import subprocess
import sys

import pytest

import ipc
from ipc._core import log_append, log_load, log_store
from ipc.log import LEAST_BYTES


@pytest.fixture
def fd():
    made = ipc.make_log(LEAST_BYTES)
    yield made
    os.close(made)


def test_records_are_there_for_the_next_one(fd):
    first = ipc.Log(fd)
    assert list(first.records()) == []
    assert first.append([b"a", b"", b"bc" * 100]) == 3 * 4 + 201
    assert first.append([b"d"]) == 5
    first.close()
    after = ipc.Log(fd)
    assert list(after.records()) == [b"a", b"", b"bc" * 100, b"d"]
    assert after.used == 3 * 4 + 201 + 5
    assert after.append([b"e"])
    assert list(after.records())[-1] == b"e"


def test_a_half_that_is_full_is_written_anew(fd):
    log = ipc.Log(fd)
    record = b"x" * 996
    count = LEAST_BYTES // 1000
    assert all(log.append([record]) for _ in range(count))
    before = log.used
    assert log.append([b"y" * 300, record]) == 0  # all of them, or none
    assert log.used == before
    assert not log.rewrite([record] * (count + 1))
    assert list(ipc.Log(fd).records()) == [record] * count
    assert log.rewrite([b"kept"])
    assert list(ipc.Log(fd).records()) == [b"kept"]
    assert log.append([record])
    for round_ in range(5):
        assert log.rewrite([b"%d" % round_])
    assert list(ipc.Log(fd).records()) == [b"4"]


def test_memory_is_given_back(fd):
    blocks = os.fstat(fd).st_blocks
    log = ipc.Log(fd)
    log.append([b"x" * (LEAST_BYTES - 4)])
    full = os.fstat(fd).st_blocks
    log.rewrite([b"a"])
    assert blocks < os.fstat(fd).st_blocks < full


def test_what_is_no_log(tmp_path):
    with pytest.raises(ValueError, match="whole pages"):
        ipc.make_log(LEAST_BYTES + 1)
    small = os.memfd_create("small")
    with pytest.raises(ipc.CorruptLogError, match="at least"):
        ipc.Log(small)
    os.close(small)
    other = os.memfd_create("other")
    os.write(other, b"x" * (mmap.PAGESIZE + 2 * LEAST_BYTES))
    with pytest.raises(ipc.CorruptLogError, match="something else"):
        ipc.Log(other)
    os.close(other)


def test_lengths_that_can_not_be(fd):
    """Whatever lies there: an error, or records that lie in the half."""
    log = ipc.Log(fd)
    log.append([b"first", b"second"])
    rng = random.Random(5)
    with mmap.mmap(fd, 0) as memory:
        for _ in range(200):
            at = mmap.PAGESIZE + rng.randrange(log.used)
            memory[at] = rng.randrange(256)
            try:
                found = list(ipc.Log(fd).records())
            except ipc.CorruptLogError:
                continue
            assert sum(4 + len(record) for record in found) == log.used
        log_store(memory, 128, 1 << 60)
        assert list(ipc.Log(fd).records()) == []  # the word itself


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((4, 0, 64, [b"x"]), "aligned"), ((1 << 40, 0, 64, []), "aligned"), ((0, 65, 64, []), "does not lie"),
        ((0, 0, 1 << 40, []), "does not lie"),
    ],
)  # fmt: skip
def test_the_extension_checks_offsets(arguments, error):
    with pytest.raises(ValueError, match=error):
        log_append(bytearray(64), *arguments)


def test_the_extension_checks_types():
    memory = bytearray(64)
    for wrong in ((0, 0, 64, ["text"]), (0, 0, 64, (b"x",)), (0, 0, 64)):
        with pytest.raises(TypeError):
            log_append(memory, *wrong)
    with pytest.raises((OverflowError, TypeError)):
        log_append(memory, -1, 0, 64, [])
    with pytest.raises((BufferError, TypeError)):
        log_append(bytes(64), 0, 8, 64, [])
    assert log_append(memory, 0, 8, 16, [b"1234"]) == 16
    assert log_load(memory, 0) == 16
    assert log_append(memory, 0, 16, 20, [b"1"]) == -1
    assert log_load(memory, 0) == 16


WRITER = """
import sys, ipc
log, number = ipc.Log(int(sys.argv[1])), 0
print(flush=True)
while True:
    records = [b"%d " % (number + i) + b"." * ((number + i) * 37 % 300) for i in range(1 + number % 7)]
    number += len(records)
    if not log.append(records):
        log.rewrite(records)
"""


def test_a_writer_that_is_killed(fd):
    """At any time: the records are whole, and follow one another; a half that was being written does not count."""
    rng, halves = random.Random(7), set()
    for _ in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(fd)], pass_fds=[fd], stdout=subprocess.PIPE
        ) as writer:
            writer.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(rng.uniform(0.001, 0.03))
            writer.send_signal(signal.SIGKILL)
        log = ipc.Log(fd)
        found = list(log.records())
        assert found
        for record, following in itertools.pairwise(found):
            number = int(record.split(b" ")[0])
            assert int(following.split(b" ")[0]) in (number + 1, 0)
            assert record == b"%d " % number + b"." * (number * 37 % 300)
        halves.add(log._active)
        log.close()
    assert halves == {0, 1}
