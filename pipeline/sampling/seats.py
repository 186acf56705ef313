"""When the sampler learns of a row's new tenant: before it is needed, but not while a first token is waited for."""

from __future__ import annotations

from collections.abc import Iterable

from model.sampling import Sampler
from pipeline.messages import Admit
from pipeline.sampling.logits_files import LogitsFiles

AT_ONCE = 1 << 15  # tokens that the sampler may read after a step beside its work: 0.5 to 1 ms
ROW_COST = 1 << 9  # of a row of which no token is read, in such tokens


class Seats:
    """Rows that were given to somebody of whom the sampler does not know yet."""

    def __init__(self, sampler: Sampler, files: LogitsFiles | None) -> None:
        self._sampler, self._files = sampler, files
        self._waiting: dict[int, Admit] = {}  # by row

    def give(self, admit: Admit) -> None:
        """A row has a new tenant."""
        self._waiting[admit.row] = admit

    def vacate(self, row: int) -> None:
        """Nobody is in it any more."""
        self._waiting.pop(row, None)

    def fill(self, rows: Iterable[int]) -> None:
        """Tell the sampler of the new tenants of these rows."""
        if self._waiting:
            for admit in [self._waiting.pop(row) for row in rows if row in self._waiting]:
                self._tell(admit)

    def fill_others(self) -> None:
        """Those whose first token is not due: a few after each step, so that the next step need not wait for all."""
        cost = 0
        while self._waiting and cost < AT_ONCE:
            admit = self._waiting.pop(next(iter(self._waiting)))
            self._tell(admit)
            read = admit.prompt_ids.size + admit.output_ids.size if admit.params.sampling.penalised else 0
            cost += ROW_COST + read

    def _tell(self, admit: Admit) -> None:
        self._sampler.admit(admit.row, admit.params.sampling, admit.prompt_ids, admit.output_ids)
        if self._files is not None:
            self._files.admit(admit.row, admit.prompt_ids, admit.output_ids)
