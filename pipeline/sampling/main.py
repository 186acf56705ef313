"""The sampling process."""

from __future__ import annotations

from pipeline.sampling.logits_files import LogitsFiles
from pipeline.sampling.sampler_stage import SamplingStage
from pipeline.stage import Stage, settle
from pipeline.stats import Counters, SamplingCounter
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
            logits_files=_logits_files(stage),
        )
        settle()
        Counters(stage.stats, stage.name).set(SamplingCounter.READY, 1)
        stage.status.ready()
        while True:
            sampling.run_step()


def _logits_files(stage: Stage) -> LogitsFiles | None:
    directory = stage.config.pipeline.save_logits_dir
    return LogitsFiles(directory, stage.shapes.max_rows) if directory else None
