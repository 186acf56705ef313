"""Two processes that are the ranks of one model, each with MindSpore; and what the tests do in them."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager

from model.mindspore_common.ranks import Ranks, segment_bytes
from tests.model.mindspore_runner import scenarios
from tests.model.mixed_steps import feed

COUNT = 2


class Pair:
    """`call` runs a function in both: it gets what the ranks meet in, and its arguments. `pids` of both."""

    def __init__(self, pools: list[ProcessPoolExecutor]) -> None:
        self._pools = pools
        self.pids = [pool.submit(os.getpid).result() for pool in pools]

    def begin(self, function, *args, reduce="shared memory", **kwargs):
        """Futures of both, at a new segment."""
        fd = os.memfd_create("ranks")
        os.ftruncate(fd, segment_bytes(COUNT))
        path, calls = f"/proc/{os.getpid()}/fd/{fd}", []
        for rank, pool in enumerate(self._pools):
            calls.append(pool.submit(_run, path, rank, reduce, function, args, kwargs))
        for call in calls:
            call.add_done_callback(lambda _: all(each.done() for each in calls) and _close(fd))
        return calls

    def call(self, function, *args, **kwargs):
        return [call.result(timeout=280) for call in self.begin(function, *args, **kwargs)]


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        return  # the other one's callback was as late


def _run(path, rank, reduce, function, args, kwargs):
    fd = os.open(path, os.O_RDWR)
    try:
        return function(Ranks(rank, COUNT, fd, reduce), *args, **kwargs)
    finally:
        os.close(fd)


@contextmanager
def two_processes(initializer=None) -> Iterator[Pair]:
    with ExitStack() as stack:
        context = multiprocessing.get_context("spawn")
        pools = [
            stack.enter_context(ProcessPoolExecutor(1, mp_context=context, initializer=initializer, initargs=(rank,)))
            if initializer
            else stack.enter_context(ProcessPoolExecutor(1, mp_context=context))
            for rank in range(COUNT)
        ]
        yield Pair(pools)


def mixed(ranks, folder, tokens, **changes):
    """See `feed`: by all ranks together, and in this process alone."""
    together = feed(scenarios.loaded(folder, ranks=ranks, threads=1, **changes), tokens)
    return together, feed(scenarios.loaded(folder, threads=1, **changes), tokens)
