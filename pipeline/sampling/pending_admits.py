"""Delays admitting new sequences to the sampler: in time for their first token, but after more urgent tokens."""

from __future__ import annotations

from collections.abc import Iterable

from model.sampling import Sampler, SamplingParams
from pipeline.sampling.logits_files import LogitsFiles
from pipeline.wire.request import Assign, count_ids

AT_ONCE = 1 << 15  # tokens that the sampler may read after each step: 0.5 to 1 ms
ROW_COST = 1 << 9  # cost of a row whose tokens are not read, in such tokens


class PendingAdmits:
    """Rows whose new sequence is not admitted to the sampler yet."""

    def __init__(self, sampler: Sampler, files: LogitsFiles | None) -> None:
        self._sampler, self._files = sampler, files
        self._by_row: dict[int, tuple[Assign, SamplingParams]] = {}

    def add(self, assign: Assign, params: SamplingParams) -> None:
        """A row has a new sequence, whose tokens are to be chosen by these parameters."""
        self._by_row[assign.row] = assign, params

    def discard(self, row: int) -> None:
        """The row is free again."""
        self._by_row.pop(row, None)

    def apply(self, rows: Iterable[int]) -> None:
        """Admit the new sequences of these rows."""
        if self._by_row:
            for assign, params in [self._by_row.pop(row) for row in rows if row in self._by_row]:
                self._admit_to_sampler(assign, params)

    def apply_others(self) -> None:
        """Admit sequences whose first token is not due: a few after each step, so that no step waits for all."""
        cost = 0
        while self._by_row and cost < AT_ONCE:
            assign, params = self._by_row.pop(next(iter(self._by_row)))
            self._admit_to_sampler(assign, params)
            read = count_ids(assign.prompt) + count_ids(assign.output) if params.penalised else 0
            cost += ROW_COST + read

    def _admit_to_sampler(self, assign: Assign, params: SamplingParams) -> None:
        prompt, output = assign.prompt_ids, assign.output_ids
        self._sampler.admit(assign.row, params, prompt, output, seed=assign.seed, end_ids=assign.end_ids)
        if self._files is not None:
            self._files.admit(assign.row, prompt, output)
