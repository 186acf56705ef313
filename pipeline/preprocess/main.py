"""The preprocess process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial

import ipc
from model.runner import RunnerFacts
from model.tokenizer import Tokenizer
from pipeline.config import Configuration
from pipeline.preprocess.adapters import Adapter, adapters_of
from pipeline.preprocess.blocks import BlockManager
from pipeline.preprocess.drafts import DraftLimits
from pipeline.preprocess.intake import Intake
from pipeline.preprocess.prompts import PreprocessLimits, PromptPool, PromptReader
from pipeline.preprocess.quarantine import Quarantine
from pipeline.preprocess.scheduler import Scheduler
from pipeline.preprocess.sequence import Abilities
from pipeline.preprocess.stage import OVERLAPPED, PLAIN, Gauges, PreprocessRings, PreprocessStage
from pipeline.runtime import background
from pipeline.runtime.deterministic import fixed_tokens, why_not_deterministic
from pipeline.runtime.engines import sampled_positions
from pipeline.runtime.generations import Generation, culprit
from pipeline.runtime.stage import Stage
from pipeline.runtime.tokenizer import end_ids, open_tokenizer
from pipeline.stats import Counters, RingEnds, StatsReader
from pipeline.wire.rings import StageRings
from pipeline.wire.step import Shapes
from pipeline.wire.topology import INFERENCE, SAMPLING

_MOST_NAMED = 2048  # requests in a message of the control channel
_WAITING_BODIES = 4  # the texts that wait to be tokenized may be as long as so many of the longest requests


def run_preprocess(stage: Stage) -> None:
    """The tokenizer and what is held against requests stay from generation to generation; rows and blocks do not."""
    sys.setswitchinterval(background.SWITCH_S)
    tokenizer = open_tokenizer(stage.config, stage.shapes.vocab_size)
    tokenizer.remember(stage.config.pipeline.tokenized_cache_bytes)
    service = _Service(stage, stage.facts, tokenizer)
    stage.aboard = service.aboard
    stage.serve(service.run)


class _Service:
    """One generation after the other."""

    def __init__(self, stage: Stage, facts: RunnerFacts, tokenizer: Tokenizer) -> None:
        self._stage, self._facts, self._tokenizer = stage, facts, tokenizer
        self._quarantine = Quarantine()
        self._pool = PromptPool(Counters(stage.stats, stage.name))
        self._last: tuple[int, Scheduler] | None = None  # generation before this one

    def run(self, generation: Generation, rings: StageRings) -> None:
        """Take requests and plan steps until the rings close."""
        self._look_back(generation)
        self._pool.clear()
        stage, tokenizer, facts = self._stage, self._tokenizer, self._facts
        slots, records, lane, options = rings.slots, rings.records, rings.lanes[0], stage.end_options
        ends, adapters = end_ids(stage.config, tokenizer), adapters_of(stage.fingerprints)
        with (
            lane["requests"].consumer(**options) as requests,
            slots["results"].consumer(**options) as results,
            lane["replies"].producer(**options) as replies,
            records["rows"].producer(**options) as rows,
            slots["steps"].producer(**options) as steps,
        ):
            scheduler = make_scheduler(
                stage.config, facts, stage.shapes, steps.capacity, self._quarantine, rows.capacity // 2
            )
            self._last = generation.number, scheduler
            counters = Counters(stage.stats, stage.name)
            intake = Intake(scheduler, self._pool, self._quarantine, lambda drop: rows.write(drop.pack()), counters)
            selector = ipc.RingSelector(
                [(requests, lane["requests"].data_fd()), (results, slots["results"].data_fd())],
                [self._pool.fileno()],
            )
            reader = StatsReader(stage.stats)
            preprocess = PreprocessStage(
                PreprocessRings(requests, results, replies, rows, steps, selector, records["rows"].data_fd()),
                stage.shapes,
                scheduler,
                intake,
                depth=OVERLAPPED if stage.config.pipeline.overlap else PLAIN,
                gauges=Gauges(counters, RingEnds(stage.stats, stage.name, rings.every)),
                step_limits=partial(reader.step_limits, stage.replica),
            )

            def not_deterministic() -> str:  # inference has found out by the time a request comes
                return why_not_deterministic(facts, here=reader.is_deterministic(stage.replica))

            def set_limits() -> None:
                limits = limits_of(stage.config, facts, ends, adapters, not_deterministic)
                intake.reader = PromptReader(tokenizer, limits, scheduler.blocks)

            set_limits()
            stage.on_reload = set_limits
            stage.begin(generation)
            preprocess.run()

    def aboard(self) -> tuple[int, ...] | None:
        """Requests that had a row in the last generation; None: too many for a message."""
        requests = [] if self._last is None else [sequence.request for sequence in self._last[1].aboard]
        return tuple(requests) if len(requests) <= _MOST_NAMED else None

    def _look_back(self, generation: Generation) -> None:
        """Whether requests are to blame for the end of the generation before this one."""
        if self._last is None:
            return
        number, scheduler = self._last
        if (stage := culprit(generation.ended, number, INFERENCE.name, SAMPLING.name)) is not None:
            self._quarantine.accuse(stage, scheduler.aboard, scheduler.alone)


def make_scheduler(
    config: Configuration,
    facts: RunnerFacts,
    shapes: Shapes,
    ring_slots: int,
    quarantine: Quarantine,
    admission_bytes: int,
) -> Scheduler:
    """`admission_bytes`: half of the ring of rows. Sampling reads it only once it has a step's logits: records of one
    step that did not fit would be waited for by everybody."""
    blocks = BlockManager(facts.num_blocks, facts.block_size, prefix_cache=config.pipeline.prefix_cache)
    return Scheduler(
        blocks,
        max_rows=shapes.max_rows,
        token_budget=shapes.token_budget,
        block_table_width=shapes.block_table_width,
        ring_slots=ring_slots,
        logit_rows=shapes.logit_rows,
        samples=shapes.samples,
        admission_bytes=admission_bytes,
        quarantine=quarantine,
        drafts=DraftLimits(
            most=shapes.drafts,
            max_rows=config.pipeline.speculation.max_rows,
            samples=sampled_positions(config),
            beside_prompts=shapes.max_rows,
            logit_rows=shapes.logit_rows,
        ),
        fixed_tokens=fixed_tokens(facts),
    )


def limits_of(
    config: Configuration,
    facts: RunnerFacts,
    ends: frozenset[int],
    adapters: Mapping[str, Adapter],
    not_deterministic: Callable[[], str],
) -> PreprocessLimits:
    pipeline = config.pipeline
    return PreprocessLimits(
        max_length=facts.max_length,
        max_prompt=config.max_prompt,
        max_queue=pipeline.max_queue,
        max_queue_chars=_WAITING_BODIES * pipeline.body_limit_bytes,
        end_ids=ends,
        abilities=Abilities.of(
            facts, argmax=pipeline.greedy_on_device, save_logits=pipeline.save_logits_dir is not None
        ),
        adapters=adapters,
        not_deterministic=not_deterministic,
    )
