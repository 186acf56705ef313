"""The sampling process."""

from __future__ import annotations

import contextlib
import functools

import ipc
from model.grammar import Vocabulary
from model.tokenizer import Tokenizer
from pipeline.runtime.generations import Generation
from pipeline.runtime.stage import Stage
from pipeline.runtime.tokenizer import end_ids, open_tokenizer
from pipeline.sampling.chooser import Chooser
from pipeline.sampling.grammars import RowGrammars
from pipeline.sampling.logits_files import LogitsFiles
from pipeline.sampling.rows import Rows
from pipeline.sampling.stage import Measurements, SamplingRings, SamplingStage
from pipeline.sampling.verifier import Verifier
from pipeline.stats import Counters, RingEnds
from pipeline.wire.rings import StageRings


def run_sampling(stage: Stage) -> None:
    """The tokenizer stays from generation to generation."""
    tokenizer = open_tokenizer(stage.config, stage.shapes.vocab_size)
    stage.serve(lambda generation, rings: _run(stage, generation, rings, tokenizer))


def _run(stage: Stage, generation: Generation, rings: StageRings, tokenizer: Tokenizer) -> None:
    """Sample, stop and detokenize until the rings close."""
    slots, records, lane, options = rings.slots, rings.records, rings.lanes[0], stage.end_options
    ends, shapes = end_ids(stage.config, tokenizer), stage.shapes
    verifier = Verifier(shapes, stage.config.max_length)
    chooser = Chooser(shapes, stage.config.max_length, len(ends), _logits_files(stage), verifier)
    vocabulary = functools.partial(Vocabulary, tokenizer, shapes.vocab_size, ends)
    with (
        contextlib.closing(RowGrammars(chooser.pending, vocabulary, Counters(stage.stats, stage.name))) as grammars,
        slots["logits"].consumer(**options) as logits,
        records["rows"].consumer(**options) as rows,
        slots["tokens"].producer(**options) as tokens,
        slots["results"].producer(**options) as results,
        lane["deltas"].producer(**options) as deltas,
    ):
        selector = ipc.RingSelector([(logits, slots["logits"].data_fd())], [records["rows"].data_fd()])
        sampling = SamplingStage(
            SamplingRings(logits, rows, tokens, results, deltas, selector),
            shapes,
            Rows(shapes.max_rows, tokenizer, chooser.pending, grammars, shapes.drafts),
            chooser,
            verifier,
            Measurements(stage.stats, RingEnds(stage.stats, stage.name, rings.every), stage.replica),
        )
        stage.begin(generation)
        sampling.run()


def _logits_files(stage: Stage) -> LogitsFiles | None:
    directory = stage.config.pipeline.save_logits_dir
    return LogitsFiles(directory, stage.shapes.max_rows) if directory else None
