"""The inference process."""

from __future__ import annotations

import time

import numpy as np

from model.layout import padding
from model.runner import Runner
from pipeline.inference.step_executor import InferenceRings, StepExecutor
from pipeline.runtime.engines import make_runner
from pipeline.runtime.generations import Generation
from pipeline.runtime.stage import Stage
from pipeline.stats import Counters, InferenceCounter, RingEnds
from pipeline.wire.rings import StageRings


def run_inference(stage: Stage) -> None:
    """Load and warm up once; device, weights and compiled graphs stay from generation to generation."""
    runner = make_runner(stage.config)
    try:
        runner.load(stage.control.progress)
        runner.warm_up(stage.control.progress)
        rehearse(runner, Counters(stage.stats, stage.name))
        stage.serve(lambda generation, rings: _run(stage, generation, rings, runner))
    finally:
        runner.close()


def _run(stage: Stage, generation: Generation, rings: StageRings, runner: Runner) -> None:
    """Execute steps until the rings close."""
    slots, rank, options = rings.slots, stage.spec.rank, stage.end_options
    with (
        slots["steps"].consumer(rank, **options) as steps,
        slots["tokens"].consumer(rank, **options) as tokens,
        slots["logits"].producer(**options) as logits,
    ):
        counters = Counters(stage.stats, stage.name)
        ends = RingEnds(stage.stats, stage.name, rings.every)
        executor = StepExecutor(runner, InferenceRings(steps, tokens, logits), stage.shapes, counters, ends)
        stage.begin(generation)
        try:
            executor.run()
        finally:
            runner.abandon()  # it may have begun a step on arrays of these rings


def rehearse(runner: Runner, counters: Counters) -> None:
    """How long the largest step takes, padding alone: until there are others, what supervision goes by. A slow device
    must not be taken for one that hangs."""
    facts = runner.facts
    binding = runner.bind(padding(max(facts.buckets), facts))
    began = time.monotonic_ns()
    runner.step(binding, np.zeros((0, facts.vocab_size), np.float32))  # no position of it is sampled
    counters.set(InferenceCounter.REHEARSAL_NS, time.monotonic_ns() - began)
