"""The log that outlives its writer: whole records, whenever that is killed; the other half in place of a full one."""

from __future__ import annotations

import itertools
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
from array import array

import pytest

import ipc
from ipc._core import LogHalves
from ipc.log import LEAST_BYTES

FRAME = 12


@pytest.fixture
def fd():
    made = ipc.make_log(LEAST_BYTES)
    yield made
    os.close(made)


def write(log, owner, *records):
    ipc.LogWriter(log, owner).append(list(records))


def read(fd):
    return list(ipc.Log(fd).records())


def test_records_are_there_for_the_next_one(fd):
    first = ipc.Log(fd)
    assert list(first.records()) == []
    writer = ipc.LogWriter(first, 1 << 63)
    writer.append([b"a", b"", b"bc" * 100])
    assert (writer.owner, writer.size, first.used) == (1 << 63, 3 * FRAME + 201, 3 * FRAME + 201)
    write(first, 7, b"d")
    writer.append([])
    first.close()
    after = ipc.Log(fd)
    records = [(1 << 63, b"a"), (1 << 63, b""), (1 << 63, b"bc" * 100), (7, b"d")]
    assert list(after.records()) == records
    assert after.used == 4 * FRAME + 202
    write(after, 7, b"e")
    assert read(fd) == [*records, (7, b"e")]


def test_records_of_some_owners_stay_in_their_order(fd):
    log, rng = ipc.Log(fd), random.Random(3)
    for _ in range(5):
        for _ in range(200):
            write(log, rng.randrange(1, 9), rng.randbytes(rng.randrange(60)))
        owners = set(rng.sample(range(10), rng.randrange(1, 10)))
        left = [record for record in log.records() if record[0] in owners]
        log.retain(owners)
        assert list(log.records()) == read(fd) == left
        assert log.used == sum(FRAME + len(record) for _, record in left)
    log.retain([])
    assert (log.used, read(fd)) == (0, [])


def test_a_half_that_is_full(fd):
    log = ipc.Log(fd)
    first, other = ipc.LogWriter(log, 1), ipc.LogWriter(log, 2)
    while log.room >= 1000:
        first.append([b"x" * 988])
    before, size = read(fd), first.size
    first.append([b"y" * 300, b"z" * (log.room - 300 - 2 * FRAME + 1)])  # all of them, or none
    assert (first.size, first.incomplete, read(fd)) == (size, True, before)
    first.append([b"small"])  # what comes later does not follow what came before
    assert read(fd) == before
    other.append([b"y" * 300])
    assert (read(fd)[-1], other.incomplete) == ((2, b"y" * 300), False)


def test_room_is_made(fd):
    asked = []

    def tidy(size):
        asked.append(size)
        log.retain([2])

    log = ipc.Log(fd, tidy)
    dropped, kept = ipc.LogWriter(log, 1), ipc.LogWriter(log, 2)
    kept.append([b"first"])
    while log.room >= 1000:
        dropped.append([b"x" * 988])
    kept.append([b"y" * 2000])
    assert asked == [2000 + FRAME]
    assert read(fd) == [(2, b"first"), (2, b"y" * 2000)]
    assert (log.used, kept.size) == (kept.size, 2005 + 2 * FRAME)
    kept.append([b"z" * LEAST_BYTES])  # it never has room
    assert (len(asked), kept.incomplete, log.used) == (2, True, kept.size)


def test_what_a_callback_may_do(fd):
    def raises(size):
        raise KeyError(size)

    def closes(_):
        log.close()

    def appends(_):
        ipc.LogWriter(log, 3).append([b"w" * LEAST_BYTES])  # no other callback comes of it
        log.retain([])
        write(log, 3, b"own")
        records[:] = [b"changed"]

    log = ipc.Log(fd, raises)
    writer, big = ipc.LogWriter(log, 1), [b"x" * LEAST_BYTES]
    with pytest.raises(KeyError):
        writer.append(big)
    assert (writer.incomplete, writer.size, log.used) == (True, 0, 0)
    log.on_full, records = appends, [*big]
    write(log, 2, b"before")
    ipc.LogWriter(log, 2).append(records)
    assert read(fd) == [(3, b"own"), (2, b"changed")]
    log.on_full = closes
    with pytest.raises(ValueError, match="closed"):
        ipc.LogWriter(log, 4).append(big)
    for use in (lambda: write(log, 4, b"x"), lambda: log.retain([1]), log.turn, log.settle):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_it_says_once_that_it_has_grown(fd):
    told = []
    log = ipc.Log(fd, on_mark=lambda: told.append(log.used))
    log.mark = 3 * (FRAME + 8)
    for _ in range(6):
        write(log, 1, bytes(8))
    assert told == [4 * (FRAME + 8)]
    log.mark = log.used
    write(log, 1)
    assert len(told) == 1
    write(log, 1, b"")
    assert len(told) == 2
    log.on_mark, log.mark = [].pop, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", lambda error: told.append(error.exc_type))
        write(log, 2, b"it is there nevertheless")
    assert (told[-1], read(fd)[-1]) == (IndexError, (2, b"it is there nevertheless"))


def test_all_is_written_anew_at_once(fd):
    log = ipc.Log(fd)
    write(log, 1, b"a", b"b")
    before = read(fd)

    def kept():
        yield ipc.LogWriter(log, 2), [b"c"]
        assert read(fd) == before  # a writer that is killed here leaves this
        yield ipc.LogWriter(log, 1), [b"d", b"e"]
        yield large, [bytes(LEAST_BYTES)]

    large = ipc.LogWriter(log, 3)
    log.rewrite(kept())
    assert list(log.records()) == read(fd) == [(2, b"c"), (1, b"d"), (1, b"e")]
    assert large.incomplete
    for number in range(5):
        log.rewrite([(ipc.LogWriter(log, number), [b"x"])])
    assert read(fd) == [(4, b"x")]


def test_memory_is_given_back(fd):
    blocks = os.fstat(fd).st_blocks
    log = ipc.Log(fd)
    write(log, 1, b"x" * (LEAST_BYTES - FRAME))
    full = os.fstat(fd).st_blocks
    log.retain([2])
    write(log, 2, b"a")
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
    """Whatever lies there: an error, or records that lie in the half; and what is copied of it is what is read."""
    log = ipc.Log(fd)
    write(log, 1, b"first", b"second")
    begin, used, rng = log.begin, log.used, random.Random(5)
    with mmap.mmap(fd, 0) as memory:
        for _ in range(200):
            at = begin + rng.randrange(used)
            memory[at] = rng.randrange(256)
            log = ipc.Log(fd)
            try:
                found = list(log.records())
            except ipc.CorruptLogError:
                with pytest.raises(ipc.CorruptLogError):
                    log.retain([1])
                assert (ipc.Log(fd).begin, ipc.Log(fd).used) == (begin, used)
                continue
            assert sum(FRAME + len(record) for _, record in found) == used
        struct.pack_into("=Q", memory, 128, 1 << 60)
        assert read(fd) == []  # the word itself


@pytest.mark.parametrize(("size", "header"), [(128, 128), (4096, 64), (4096, 1 << 40), (4096, 1 << 63)])
def test_the_extension_checks_sizes(size, header):
    with pytest.raises(ValueError, match="too small"):
        LogHalves(mmap.mmap(-1, size), header)


def test_the_extension_checks_types(fd):
    log = ipc.Log(fd)
    for wrong in ([b"x", "text"], (b"x",), None):
        with pytest.raises(TypeError):
            ipc.LogWriter(log, 1).append(wrong)
    assert log.used == 0
    for wrong in ((None, 1), (log, "x"), (log,), (log, 1, 2)):
        with pytest.raises(TypeError):
            ipc.LogWriter(*wrong)
    with pytest.raises((BufferError, TypeError)):
        LogHalves(bytes(4096), 512)
    with pytest.raises(ValueError, match="closed"):
        write(LogHalves.__new__(LogHalves), 1, b"x")
    with pytest.raises(ValueError, match="64-bit"):
        log.retain_sorted(memoryview(bytes(16))[1:])
    log.retain_sorted(array("Q"))


WRITER = """
import sys, ipc
log, number, turn = ipc.Log(int(sys.argv[1])), 0, 0
print(flush=True)
while True:
    owner = 1 + turn % 5
    writer = ipc.LogWriter(log, owner)
    writer.append([b"%d " % (number + i) + b"." * ((number + i) * 37 % 300) for i in range(owner)])
    number, turn = number + owner, turn + 1
    if writer.incomplete:
        log.retain([3] if turn % 2 else [])
    elif turn % 7 == 0:
        log.retain([2, 3])
"""


def test_a_writer_that_is_killed(fd):
    """At any time: the records are whole, and follow one another; a half that was being written does not count."""
    rng, halves, most = random.Random(7), set(), 0
    for _ in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(fd)], pass_fds=[fd], stdout=subprocess.PIPE
        ) as writer:
            writer.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(rng.uniform(0.001, 0.03))
            writer.send_signal(signal.SIGKILL)
        log = ipc.Log(fd)
        found = [(owner, *record.split(b" ")) for owner, record in log.records()]
        most = max(most, len(found))  # there may be none: it may have kept nothing last
        numbers = [int(number) for _, number, _ in found]
        assert [rest for *_, rest in found] == [b"." * (number * 37 % 300) for number in numbers]
        assert all(number < following or following < 30 for number, following in itertools.pairwise(numbers))
        kept = [int(number) for owner, number, _ in found if owner == 3]
        assert kept == [first + more for first in kept[::3] for more in range(3)]  # all of an append, or none
        for first, following in itertools.pairwise(kept[::3]):
            assert following in (first + 15, first + 30) or following < 30  # it is kept, unless it had no room
        halves.add(log.begin)
        log.close()
    assert len(halves) == 2
    assert most > 30
