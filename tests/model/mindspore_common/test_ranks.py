"""The ranks' collectives without MindSpore: sums and gathers between processes, some of which die."""

from __future__ import annotations

import ctypes
import multiprocessing
import os

import numpy as np
import pytest

from model.errors import ConfigurationError, StepError
from model.mindspore_common.native import last_error, load_library
from model.mindspore_common.ranks import ALL_REDUCE, Gather, Ranks, join, leave, segment_bytes

LARGE = 300_000  # float32: several buffers


@pytest.fixture
def group():
    """Runs a function of its rank, in as many processes as ranks, that meet in one segment; their results."""
    fd = os.memfd_create("ranks")

    def run(count, function, *args, patience_s=60.0):
        os.ftruncate(fd, segment_bytes(count))
        return [*_in_processes(count, lambda rank: Ranks(rank, count, fd, patience_s=patience_s), function, args)]

    yield run
    os.close(fd)


def _in_processes(count, ranks, function, args):
    context, children = multiprocessing.get_context("fork"), []
    for rank in range(count):
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_as_rank, args=(theirs, ranks(rank), function, args))
        child.start()
        theirs.close()
        children.append((child, ours))
    for child, ours in children:
        try:
            yield ours.recv()
        except EOFError:
            yield None
        child.join()


def _as_rank(pipe, ranks, function, args):
    join(ranks)
    try:
        pipe.send(function(ranks, *args))
    except StepError as error:
        pipe.send(error)


def reduced(values):
    """What MindSpore calls, as it calls it."""
    call, out = load_library()[ALL_REDUCE], np.empty_like(values)
    params = (ctypes.c_void_p * 2)(values.ctypes.data, out.ctypes.data)
    shape = (ctypes.c_int64 * 2)(*values.shape)
    shapes, dims = (ctypes.POINTER(ctypes.c_int64) * 2)(shape, shape), (ctypes.c_int * 2)(2, 2)
    dtypes = (ctypes.c_char_p * 2)(values.dtype.name.encode(), b"float32")
    if call(2, params, dims, shapes, dtypes, None, None):
        raise StepError(last_error())
    return out


def random(rank, turn, size):
    return np.random.default_rng((rank, turn)).standard_normal((1, size), np.float32)


def many_sums(ranks, sizes):
    return [reduced(random(ranks.rank, turn, size)) for turn, size in enumerate(sizes)]


@pytest.mark.parametrize("count", [2, 3, 16])
def test_sums_are_in_the_order_of_ranks_and_the_same_bits_everywhere(group, count):
    sizes = [1, 256, LARGE, 7, *[64] * 200]
    every = group(count, many_sums, sizes)
    for turn, size in enumerate(sizes):
        expected = random(0, turn, size)
        for rank in range(1, count):
            expected = expected + random(rank, turn, size)
        for found in every:
            np.testing.assert_array_equal(found[turn], expected)


def gathered(own, count=2):
    every = np.empty((count, *own.shape), own.dtype)
    Gather(count)(own, every)
    return every


def gathers(ranks):
    return [gathered(random(ranks.rank, turn, size), ranks.count) for turn, size in enumerate((3, LARGE, 0, 5))]


def test_gathers_bring_together_what_each_rank_has(group):
    for found in group(3, gathers):
        for turn, size in enumerate((3, LARGE, 0, 5)):
            np.testing.assert_array_equal(found[turn], [random(rank, turn, size) for rank in range(3)])


def dies(ranks):
    many_sums(ranks, [8] * 20)
    if ranks.rank == 1:
        os._exit(1)
    return gathered(np.zeros(4, np.float32), ranks.count)


def test_a_death_ends_the_waits_of_the_others(group):
    first, _, last = group(3, dies)
    for number, error in ((0, first), (2, last)):
        assert isinstance(error, StepError)
        assert str(error).startswith(f"the ranks are apart: rank {number} waits for rank ")
        assert str(error).endswith("is dead")


def at_another_step(ranks):
    return gathered(np.zeros(4 + ranks.rank, np.float32))


def test_ranks_at_different_steps_do_not_go_on(group):
    for error in group(2, at_another_step):
        assert "which computes another step" in str(error)


def sum_and_gather(ranks):
    return gathered(np.zeros((1, 4), np.float32)) if ranks.rank else reduced(np.zeros((1, 4), np.float32))


def test_a_sum_is_no_gather(group):
    for error in group(2, sum_and_gather):
        assert "which computes another step" in str(error)


def only_the_first(ranks):
    return gathered(np.zeros(4, np.float32)) if ranks.rank == 0 else os.getpid()


def test_one_that_does_not_come_is_not_waited_for_for_ever(group):
    error, pid = group(2, only_the_first, patience_s=0.2)
    assert f"rank 0 waits for rank 1 (pid {pid}), which " in str(error)


def test_only_float32_is_added_up(group):
    for error in group(2, sum_of_float64):
        assert str(error) == "all_reduce adds up float32"


def sum_of_float64(_):
    return reduced(np.zeros((1, 4)))


def test_no_place_twice():
    fd = os.memfd_create("ranks")
    try:
        with pytest.raises(ConfigurationError, match="segment is too small"):
            join(Ranks(0, 2, fd))
        os.ftruncate(fd, segment_bytes(2))
        join(Ranks(0, 2, fd))
        with pytest.raises(ConfigurationError, match="rank 1 of 2: this process is a rank already"):
            join(Ranks(1, 2, fd))
        leave()
        with pytest.raises(ConfigurationError, match="rank 0 of 2: another process has this rank already"):
            join(Ranks(0, 2, fd))
        for ranks, message in ((Ranks(2, 2, fd), "no such rank"), (Ranks(0, 17, fd), "no such rank")):
            with pytest.raises(ConfigurationError, match=message):
                join(ranks)
        with pytest.raises(ConfigurationError, match="no segment to meet the others in"):
            join(Ranks(0, 2))
    finally:
        leave()
        os.close(fd)


def test_who_has_not_joined_takes_part_in_nothing():
    with pytest.raises(StepError, match="this process is no rank: join first"):
        gathered(np.zeros(1, np.float32))
