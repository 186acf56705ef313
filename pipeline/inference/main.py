"""The inference process."""

from __future__ import annotations

from model.runner import Runner
from pipeline.generations import Generation
from pipeline.inference.executor import StepExecutor
from pipeline.runners import make_runner
from pipeline.stage import Stage
from pipeline.stats import Counters
from pipeline.wiring import StageRings


def run_inference(stage: Stage) -> None:
    """Load and warm up once; device, weights and compiled graphs stay from generation to generation."""
    runner = make_runner(stage.config)
    try:
        runner.load(stage.control.progress)
        runner.warm_up(stage.control.progress)
        stage.serve(lambda generation, rings: _run(stage, generation, rings, runner))
    finally:
        runner.close()


def _run(stage: Stage, generation: Generation, rings: StageRings, runner: Runner) -> None:
    """Execute steps until the rings close."""
    slots, options = rings.slots, stage.end_options
    with (
        slots["steps"].consumer(writable=True, **options) as steps,
        slots["tokens"].consumer(**options) as tokens,
        slots["logits"].producer(**options) as logits,
    ):
        counters = Counters(stage.stats, stage.name)
        executor = StepExecutor(runner, steps, tokens, logits, stage.shapes, counters)
        stage.begin(generation)
        while True:
            executor.run_step()
