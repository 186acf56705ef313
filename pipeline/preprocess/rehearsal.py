"""A request that there is not, taken the way of a real one: code that has not run for a while takes three times as
long. It has a scheduler, blocks and a slot of its own, so nobody sees anything of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from model.sampling import SamplingParams
from pipeline.preprocess.blocks import BlockManager
from pipeline.preprocess.prompts import PromptReader
from pipeline.preprocess.scheduler import Scheduler
from pipeline.preprocess.sequence import Sequence
from pipeline.wire.request import Choice, Request, Submit, unpack_message
from pipeline.wire.step import Shapes, StepColumns, step_layout

_SUBMIT = Submit.of((Choice(0),), "What a ring holds, and who writes.", Request(SamplingParams(), 1)).pack()
_TOKENS = 256  # more than that has


class Rehearsal:
    """`blocks`: the real ones, which are only looked at."""

    def __init__(self, blocks: BlockManager, shapes: Shapes) -> None:
        size, layout = blocks.block_size, step_layout(shapes)
        self._scheduler = Scheduler(
            BlockManager(2 + _TOKENS // size, size),
            max_rows=1,
            token_budget=shapes.token_budget,
            block_table_width=shapes.block_table_width,
            ring_slots=1,
        )
        self._views: StepColumns = layout.views(np.zeros(layout.size, np.uint8))

    def run(self, reader: PromptReader, is_late: Callable[[], bool]) -> None:
        """`is_late`: the real one is there, and need not wait for the rest."""
        message = unpack_message(_SUBMIT)
        assert isinstance(message, Submit)
        for sequence in reader.read(message):
            if isinstance(sequence, Sequence) and not is_late():  # limits may refuse it
                self._scheduler.submit(sequence)
                self._plan(sequence, is_late)
                self._scheduler.admissions.clear()
                self._scheduler.cancel(sequence.request)

    def _plan(self, sequence: Sequence, is_late: Callable[[], bool]) -> None:
        scheduler = self._scheduler
        if (plan := scheduler.plan()) is None or is_late():
            return
        plan.write(self._views, 0, 1, scheduler.blocks.block_size)
        if not is_late():
            scheduler.commit(plan)
            sequence.assign(1).pack()
