"""The inference process."""

from __future__ import annotations

from model.runner import Runner
from pipeline.inference.executor import StepExecutor
from pipeline.runners import make_runner
from pipeline.stage import Stage, settle
from pipeline.stats import Counters, RingEnds


def run_inference(stage: Stage) -> None:
    """Load, warm up, then execute steps until the rings close."""
    runner = make_runner(stage.config)
    try:
        runner.load(stage.status.progress)
        runner.warm_up(stage.status.progress)
        _serve(stage, runner)
    finally:
        runner.close()


def _serve(stage: Stage, runner: Runner) -> None:
    rings, options = stage.rings.slots, stage.end_options
    with (
        rings["steps"].consumer(writable=True, **options) as steps,
        rings["tokens"].consumer(**options) as tokens,
        rings["logits"].producer(**options) as logits,
    ):
        counters = Counters(stage.stats, stage.name)
        ends = RingEnds(stage.stats, stage.name, rings)
        executor = StepExecutor(runner, steps, tokens, logits, stage.shapes, counters, ends)
        settle()
        counters.set_ready()
        stage.status.ready()
        while True:
            executor.run_step()
