"""The inference process."""

from __future__ import annotations

from pipeline.inference.compilation import Compilation
from pipeline.inference.step_executor import InferenceRings, StepExecutor
from pipeline.runtime.engines import make_runner
from pipeline.runtime.generations import Generation
from pipeline.runtime.stage import Stage
from pipeline.stats import Counters, RingEnds
from pipeline.wire.rings import StageRings


def run_inference(stage: Stage) -> None:
    """Load and compile once; device, weights and compiled graphs stay from generation to generation."""
    runner = make_runner(stage.config, stage.replica)
    try:
        runner.load(stage.control.progress)
        compilation = Compilation(runner, Counters(stage.stats, stage.name), stage.pauses)
        compilation.begin(stage.control.progress, early=stage.config.pipeline.runner.warm_up == "early")
        stage.serve(lambda generation, rings: _run(stage, generation, rings, compilation))
    finally:
        runner.close()


def _run(stage: Stage, generation: Generation, rings: StageRings, compilation: Compilation) -> None:
    """Execute steps until the rings close."""
    slots, rank, options = rings.slots, stage.spec.rank, stage.end_options
    with (
        slots["steps"].consumer(rank, **options) as steps,
        slots["tokens"].consumer(rank, **options) as tokens,
        slots["logits"].producer(**options) as logits,
    ):
        counters = Counters(stage.stats, stage.name)
        ends = RingEnds(stage.stats, stage.name, rings.every)
        around = InferenceRings(steps, tokens, logits)
        executor = StepExecutor(compilation.runner, around, stage.shapes, counters, ends, compilation)
        stage.begin(generation)
        try:
            executor.run()
        finally:
            compilation.runner.abandon()  # it may have begun a step on arrays of these rings
