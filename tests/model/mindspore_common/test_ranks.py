"""The ranks' collectives without MindSpore: sums and gathers between processes, some of which die."""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import os
import time

import numpy as np
import pytest

from model.errors import ConfigurationError, ModelError, PartedError, StepError
from model.mindspore_common.host_results import HostResults
from model.mindspore_common.native import last_error, load_library
from model.mindspore_common.rank_results import RankResults
from model.mindspore_common.ranks import ALL_REDUCE, Gather, Ranks, begin, behind, end, join, leave, segment_bytes
from model.runner import Best

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
    except ModelError as error:
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
        assert isinstance(error, PartedError)  # it has not failed itself
        assert str(error).startswith(f"the ranks are apart: rank {number} waits for rank ")
        assert str(error).endswith("is dead")


def sums_beside_a_dead_one(ranks):
    many_sums(ranks, [8] * 20)
    if ranks.rank == 1:
        os._exit(1)
    return random(ranks.rank, 0, 8), *many_sums(ranks, [8])


def test_a_sum_without_one_that_is_dead_is_a_number_all_the_same(group):
    """A graph whose operator fails can't be run again."""
    own, found = group(2, sums_beside_a_dead_one)[0]
    np.testing.assert_array_equal(own, found)


# ---- generations ---------------------------------------------------------------------------------------------------


def part_and_begin_again(ranks, barrier, generations):
    """Rank 0 ends each, wherever the others are; what came out of the first sums of each."""
    segment, found = mmap.mmap(ranks.segment_fd, 0), []
    for generation in range(1, generations + 1):
        begin(generation)
        found.append(many_sums(ranks, [64, 3]))
        if ranks.rank == 0:
            many_sums(ranks, [16] * (generation % 4))
            time.sleep(generation % 3 / 1000)
            end(segment, ranks.count, generation)
        else:  # until it gets its own back
            while not np.array_equal(reduced(random(ranks.rank, 1, 16)), random(ranks.rank, 1, 16)):
                pass
        with pytest.raises(PartedError, match="the ranks are apart: the generation has ended"):
            gathered(np.zeros(4, np.int8), ranks.count)
        barrier.wait(60)  # as the launcher has all leave before the next one
    return found


def test_ranks_that_part_where_a_generation_ends_are_together_in_the_next(group):
    count, generations = 3, 40
    barrier = multiprocessing.get_context("fork").Barrier(count)
    every = group(count, part_and_begin_again, barrier, generations)
    for turn, size in enumerate([64, 3]):
        expected = random(0, turn, size) + random(1, turn, size) + random(2, turn, size)
        for found in every:
            for sums in found:
                np.testing.assert_array_equal(sums[turn], expected)


def one_is_late(ranks):
    """Who is waited for, as the first rank's neighbour sees it."""
    segment = mmap.mmap(ranks.segment_fd, 0)
    begin(1)
    many_sums(ranks, [8])
    if ranks.rank != 1:
        return gathered(np.zeros(4, np.int8), ranks.count)
    while behind(segment, ranks.count) != {1}:
        time.sleep(0.001)
    gathered(np.zeros(4, np.int8), ranks.count)
    return behind(segment, ranks.count)


def test_who_is_waited_for_can_be_seen(group):
    _, seen, _ = group(3, one_is_late)
    assert seen == set()


# ---- what does not fit ---------------------------------------------------------------------------------------------


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
    error, pid = group(2, only_the_first, patience_s=2)
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
    begin(1)  # harmless: not every engine's ranks meet
    with pytest.raises(StepError, match="this process is no rank: join first"):
        gathered(np.zeros(1, np.float32))


# ---- results -------------------------------------------------------------------------------------------------------

VOCABULARY, POSITIONS = 251, 5  # which four ranks can't divide evenly


class Output:
    """A tensor on CPU."""

    def __init__(self, logits):
        self.logits = logits

    def asnumpy(self):
        return self.logits


def some_logits():
    """With equal ones on both sides of borders, and a row that is not finite in one rank alone."""
    logits = np.random.default_rng(8).standard_normal((POSITIONS, VOCABULARY)).astype(np.float32)
    logits[1, [3, 62, 63, 130, 250]] = 9.0
    logits[2, 189:] = logits[2].max() + 1
    logits[3, 70] = np.inf
    return logits


TARGETS = np.array([0, 62, 63, 5, 250], np.int32)
FORMS = [(1, False, False), (1, True, False), (5, True, True), (62, True, True), (40, False, True)]


def best_of(results, output, k, sums, targets):
    best = Best(
        np.zeros((POSITIONS, k), np.int32),
        np.zeros((POSITIONS, k), np.float32),
        np.zeros(POSITIONS) if sums else None,
        np.zeros(POSITIONS, np.float32) if targets else None,
    )
    results.fetch_best(output, best, TARGETS if targets else None)
    return [best.ids, best.logits, best.log_sum_exp, best.target_logit]


def results_of_a_part(ranks):
    widest = -(-VOCABULARY // ranks.count)
    part = np.ascontiguousarray(some_logits()[:, ranks.rank * widest :][:, :widest])
    results = RankResults(HostResults(part.shape[1]), Gather(ranks.count), VOCABULARY, ranks.rank, widest)
    rows = np.array([4, 0, 4], np.int32)
    fetched = np.zeros((3, VOCABULARY), np.float32)
    results.fetch(Output(part), rows[:0], fetched[:0])
    results.fetch(Output(part), rows, fetched)
    return fetched, [best_of(results, Output(part), *form) for form in FORMS]


def test_all_ranks_get_what_one_would_find_in_all_logits(group):
    output, whole = Output(some_logits()), HostResults(VOCABULARY)
    expected = [best_of(whole, output, *form) for form in FORMS]
    for fetched, found in group(4, results_of_a_part):
        np.testing.assert_array_equal(fetched, some_logits()[[4, 0, 4]])
        for ours, theirs in zip(found, expected, strict=True):
            finite = theirs[0][:, 0] >= 0
            assert finite.tolist() == [True, True, True, False, True]
            np.testing.assert_array_equal(ours[0][:, 0], theirs[0][:, 0])
            for one, other in zip(ours, theirs, strict=True):
                if other is not None:
                    np.testing.assert_allclose(one[finite], other[finite], rtol=1e-8)  # sums of parts
