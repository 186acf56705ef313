"""The inference process: of a replica, or of one of its ranks."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import ipc
from model.errors import PartedError
from model.mindspore_common.ranks import Ranks, begin
from pipeline.inference.compilation import Compilation
from pipeline.inference.step_executor import InferenceRings, StepExecutor
from pipeline.inference.unread import Unread
from pipeline.runtime.engines import make_runner, require_deterministic
from pipeline.runtime.generations import Generation
from pipeline.runtime.stage import Stage
from pipeline.stats import Counters, RingEnds
from pipeline.wire.rings import StageRings


def run_inference(stage: Stage) -> None:
    """Load and compile once; device, weights and compiled graphs stay from generation to generation. Ranks compile
    everything before they serve: between two steps each would have its own idea of when."""
    ranks = Ranks(stage.spec.rank, stage.topology.ranks, stage.ranks_fd)
    if ranks.count > 1:
        os.environ.update(RANK_ID=str(ranks.rank), RANK_SIZE=str(ranks.count))  # for MindSpore's files
    runner = make_runner(stage.config, stage.replica, ranks)
    early = stage.config.pipeline.runner.warm_up == "early" and ranks.count == 1
    try:
        runner.load(stage.control.progress)
        compilation = Compilation(runner, Counters(stage.stats, stage.name), stage.pauses)
        compilation.begin(stage.control.progress, early=early)
        require_deterministic(stage.config, runner)
        stage.serve(lambda generation, rings: _run(stage, generation, rings, compilation))
    finally:
        runner.close()


def _run(stage: Stage, generation: Generation, rings: StageRings, compilation: Compilation) -> None:
    """Execute steps until the rings close."""
    slots, rank, options = rings.slots, stage.spec.rank, stage.end_options
    if stage.topology.ranks > 1:
        begin(generation.number)
    with (
        slots["steps"].consumer(rank, **options) as steps,
        slots["tokens"].consumer(rank, **options) as tokens,
        _results(stage, rings) as logits,
    ):
        counters = Counters(stage.stats, stage.name)
        ends = RingEnds(stage.stats, stage.name, rings.every)
        around = InferenceRings(steps, tokens, logits)
        executor = StepExecutor(compilation.runner, around, stage.shapes, counters, ends, compilation)
        stage.begin(generation)
        try:
            executor.run()
        except PartedError as error:  # the launcher knows which one it was
            raise ipc.RingClosed(str(error)) from error
        finally:
            compilation.runner.abandon()  # it may have begun a step on arrays of these rings


def _results(stage: Stage, rings: StageRings) -> AbstractContextManager[ipc.SlotProducer | Unread]:
    """The first rank's alone are read."""
    if stage.spec.rank == 0:
        return rings.slots["logits"].producer(**stage.end_options)
    return nullcontext(Unread())
