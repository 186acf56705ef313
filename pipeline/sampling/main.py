"""The sampling process."""

from __future__ import annotations

from pipeline.sampling.sampler_stage import SamplingStage
from pipeline.stage import Stage, settle
from pipeline.stats import Counters, RingEnds
from pipeline.tokenizers import end_ids, open_tokenizer


def run_sampling(stage: Stage) -> None:
    """Sample, stop and detokenize until the rings close."""
    tokenizer = open_tokenizer(stage.config, stage.shapes.vocab_size)
    slots, records, options = stage.rings.slots, stage.rings.records, stage.end_options
    with (
        slots["logits"].consumer(writable=True, **options) as logits,
        records["rows"].consumer(**options) as rows,
        slots["tokens"].producer(**options) as tokens,
        slots["results"].producer(**options) as results,
        records["deltas"].producer(**options) as deltas,
    ):
        sampling = SamplingStage(
            tokenizer,
            end_ids(stage.config, tokenizer),
            stage.config.max_length,
            stage.shapes,
            logits=logits,
            rows=rows,
            tokens=tokens,
            results=results,
            deltas=deltas,
            stats=stage.stats,
            ends=RingEnds(stage.stats, stage.name, {**slots, **records}),
        )
        settle()
        Counters(stage.stats, stage.name).set_ready()
        stage.status.ready()
        while True:
            sampling.run_step()
