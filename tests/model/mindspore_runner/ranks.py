"""Two processes that are the ranks of one model, each with MindSpore; and what the tests do in them."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from model.errors import StepError
from model.mindformers_runner import MindFormersRunner
from model.mindspore_common.ranks import Ranks, segment_bytes
from model.runner import Best
from tests.model import conformance
from tests.model.conftest import DATA
from tests.model.driver import Driver
from tests.model.mindformers_runner import scenarios as of_mindformers
from tests.model.mindspore_runner import scenarios
from tests.model.mixed_steps import feed
from tests.model.numpy_llama import read_safetensors, write_safetensors

COUNT = 2
PATIENCE_S = 60.0  # a rank whose check failed is not waited for longer


class Pair:
    """Both processes."""

    def __init__(self, pools: list[ProcessPoolExecutor]) -> None:
        self._pools = pools

    def begin(
        self, function: Callable, *args, reduce="shared memory", patience_s=PATIENCE_S, **kwargs
    ) -> list[Future]:
        """A function of `Ranks` and these arguments, in both, which meet in a new segment."""
        fd = os.memfd_create("ranks")
        os.ftruncate(fd, segment_bytes(COUNT))
        path = f"/proc/{os.getpid()}/fd/{fd}"
        opened = [pool.submit(os.open, path, os.O_RDWR).result(60) for pool in self._pools]
        os.close(fd)
        return [
            pool.submit(_run, Ranks(rank, COUNT, theirs, reduce, patience_s), function, args, kwargs)
            for rank, (pool, theirs) in enumerate(zip(self._pools, opened, strict=True))
        ]

    def call(self, function: Callable, *args, **kwargs) -> list:
        return [call.result(timeout=280) for call in self.begin(function, *args, **kwargs)]


def _run(ranks, function, args, kwargs):
    try:
        return function(ranks, *args, **kwargs)
    finally:
        os.close(ranks.segment_fd)


@contextmanager
def two_processes() -> Iterator[Pair]:
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        yield Pair([stack.enter_context(ProcessPoolExecutor(1, context)) for _ in range(COUNT)])


# ---- in both processes ---------------------------------------------------------------------------------------------


def mixed(ranks, folder, tokens, load=scenarios.loaded, **changes):
    """See `feed`: by all ranks together, and in this process alone."""
    alone = feed(load(folder, threads=1, **changes), tokens)  # first: MindSpore's collectives fix its device
    return feed(load(folder, ranks=ranks, threads=1, **changes), tokens), alone


def mindformers(folder, **changes):
    """A runner of mindformers' networks, as `scenarios.loaded` is one of ours."""
    runner = MindFormersRunner(of_mindformers.settings(folder, **changes))
    runner.load()
    return runner


def mindformers_as_on_ascend(folder, **changes):
    """One graph for all shapes, and logits that stay on the device."""
    runner = mindformers(folder, attention="plain", **changes)  # custom operators want static shapes
    if runner.settings.ranks.count > 1:
        runner._execution = runner._dynamic_execution(runner._network)
    return runner


def conforms(ranks) -> list[str]:
    """The checks that held."""
    with tempfile.TemporaryDirectory() as directory:
        sizes = {
            "buckets": conformance.BUCKETS,
            "num_blocks": 40,
            "max_rows": 4,
            "token_budget": 16,
            "max_length": 256,
        }
        runner = scenarios.loaded(_spoiled(Path(directory)), ranks=ranks, threads=1, **sizes)
    engine, held = conformance.Engine(_poisoned(runner), logits_atol=1e-4, scores_atol=1e-6), []
    for check in (*conformance.EVERYWHERE, *conformance.WHERE_SOMETHING_COMPUTES):
        check(engine)
        held.append(check.__name__)
    runner.close()
    return held


def _spoiled(folder: Path) -> Path:
    """With equal logits on both sides of the border between the ranks."""
    tensors = read_safetensors(DATA / "grouped" / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"].copy()
    conformance._equal(tensors["lm_head.weight"])
    write_safetensors(folder / "model.safetensors", tensors)
    (folder / "config.json").write_bytes((DATA / "grouped" / "config.json").read_bytes())
    return folder


def _poisoned(runner):
    from mindspore import Tensor

    weight = next(it for it in runner._network.get_parameters() if it.name == "embed.weight")
    values = weight.asnumpy().copy()
    conformance._poisoned(values)
    weight.set_data(Tensor(values))
    return runner


def warmed_up(ranks, folder, cache):
    """Starts as an inference process does; the graphs that were kept, and what a step says."""
    runner = scenarios.loaded(folder, ranks=ranks, threads=1, compile_cache_dir=cache)
    runner.warm_up()
    driver, best = Driver(runner), Best(np.zeros((1, 2), np.int32))
    driver.launch({"a": [7, 8]})
    runner.fetch_best(best)
    runner.close()
    return best.ids.tolist(), len(runner.facts.buckets)


def one_stays_away(ranks, folder) -> list[str]:
    """Rank 1 makes no step; what rank 0 says in its first one, which compiles, and in one that does not."""
    runner, said = scenarios.loaded(folder, ranks=ranks, threads=1), []
    for compiled in [set(), set(runner.facts.buckets)] if ranks.rank == 0 else []:
        runner._compiled = compiled
        try:
            Driver(runner).step({"a": [5, 6]})
        except StepError as error:
            said.append(str(error))
    runner.close()
    return said
