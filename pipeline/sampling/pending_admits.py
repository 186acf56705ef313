"""Delays admitting new sequences to the sampler: in time for their first token, but after more urgent tokens."""

from __future__ import annotations

from collections.abc import Iterable

from model.sampling import Sampler
from pipeline.sampling.logits_files import LogitsFiles
from pipeline.wire.rows import Admit

AT_ONCE = 1 << 15  # tokens that the sampler may read after each step: 0.5 to 1 ms
ROW_COST = 1 << 9  # cost of a row whose tokens are not read, in such tokens


class PendingAdmits:
    """Rows whose new sequence is not admitted to the sampler yet."""

    def __init__(self, sampler: Sampler, files: LogitsFiles | None) -> None:
        self._sampler, self._files = sampler, files
        self._by_row: dict[int, Admit] = {}

    def add(self, admit: Admit) -> None:
        """A row has a new sequence."""
        self._by_row[admit.row] = admit

    def discard(self, row: int) -> None:
        """The row is free again."""
        self._by_row.pop(row, None)

    def apply(self, rows: Iterable[int]) -> None:
        """Admit the new sequences of these rows."""
        if self._by_row:
            for admit in [self._by_row.pop(row) for row in rows if row in self._by_row]:
                self._admit_to_sampler(admit)

    def apply_others(self) -> None:
        """Admit sequences whose first token is not due: a few after each step, so that no step waits for all."""
        cost = 0
        while self._by_row and cost < AT_ONCE:
            admit = self._by_row.pop(next(iter(self._by_row)))
            self._admit_to_sampler(admit)
            read = admit.prompt_ids.size + admit.output_ids.size if admit.params.sampling.penalised else 0
            cost += ROW_COST + read

    def _admit_to_sampler(self, admit: Admit) -> None:
        self._sampler.admit(admit.row, admit.params.sampling, admit.prompt_ids, admit.output_ids)
        if self._files is not None:
            self._files.admit(admit.row, admit.prompt_ids, admit.output_ids)
