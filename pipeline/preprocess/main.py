"""The preprocess process."""

from __future__ import annotations

import ipc
from model.runner import RunnerFacts
from pipeline.config import Configuration
from pipeline.descriptors import Shapes
from pipeline.preprocess.blocks import BlockManager
from pipeline.preprocess.scheduler import Scheduler
from pipeline.preprocess.stage import PreprocessLimits, PreprocessStage
from pipeline.runners import make_runner
from pipeline.stage import Stage, settle
from pipeline.stats import Counters, RingEnds
from pipeline.tokenizers import end_ids, open_tokenizer


def run_preprocess(stage: Stage) -> None:
    """Take requests and plan steps until the rings close."""
    facts = make_runner(stage.config).facts
    tokenizer = open_tokenizer(stage.config, stage.shapes.vocab_size)
    slots, records, options = stage.rings.slots, stage.rings.records, stage.end_options
    with (
        records["requests"].consumer(**options) as requests,
        slots["results"].consumer(**options) as results,
        records["replies"].producer(**options) as replies,
        records["rows"].producer(**options) as rows,
        slots["steps"].producer(**options) as steps,
    ):
        counters = Counters(stage.stats, stage.name)
        preprocess = PreprocessStage(
            tokenizer,
            make_scheduler(stage.config, facts, stage.shapes, steps.capacity),
            limits_of(stage.config, facts, end_ids(stage.config, tokenizer)),
            stage.shapes,
            requests=requests,
            results=results,
            replies=replies,
            rows=rows,
            steps=steps,
            selector=ipc.RingSelector(
                [(requests, records["requests"].data_fd()), (results, slots["results"].data_fd())]
            ),
            counters=counters,
            ends=RingEnds(stage.stats, stage.name, {**slots, **records}),
        )
        settle()
        counters.set_ready()
        stage.status.ready()
        loop = preprocess.run_overlapped if stage.config.pipeline.overlap else preprocess.run_plain
        loop(lambda: True)


def make_scheduler(config: Configuration, facts: RunnerFacts, shapes: Shapes, ring_slots: int) -> Scheduler:
    blocks = BlockManager(facts.num_blocks, facts.block_size, prefix_cache=config.pipeline.prefix_cache)
    return Scheduler(
        blocks,
        facts.buckets,
        max_rows=shapes.max_rows,
        token_budget=shapes.token_budget,
        block_table_width=shapes.block_table_width,
        ring_slots=ring_slots,
    )


def limits_of(config: Configuration, facts: RunnerFacts, ends: frozenset[int]) -> PreprocessLimits:
    return PreprocessLimits(
        max_length=facts.max_length,
        max_prompt=config.max_prompt,
        max_queue=config.pipeline.max_queue,
        greedy_on_device=config.pipeline.greedy_on_device and facts.greedy_on_device,
        end_ids=ends,
        max_prompt_chars=config.pipeline.prompt_limit_chars,
    )
