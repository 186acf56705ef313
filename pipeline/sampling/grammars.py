"""Rows whose answers have a grammar: what each may choose next.

Grammars are compiled in a thread. Masks are made while the device computes the next step, after everything else is
sent, the cheapest first. A row whose mask is not there when its logits are sits out the step: it gets no token, its
position is computed again, and no other row waits for it. So which tokens are chosen depends on no clock.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from model.grammar import GrammarError, Grammars, Matcher, Vocabulary
from model.tokenizer import Tokenizer
from pipeline.runtime import background
from pipeline.sampling.chooser import PendingAdmits
from pipeline.stats import Counters, SamplingCounter
from pipeline.wire.request import Assign

_PATIENCE_NS: Final = 1_000_000  # that masks may take of a step that waits
_NS = time.CLOCK_MONOTONIC


class RowGrammar:
    """Of one row."""

    __slots__ = ("compiling", "cost_ns", "error", "last", "matcher", "ready", "row", "sat_out")

    def __init__(self, row: int, last: int, compiling: Future[tuple[Matcher, int]]) -> None:
        self.row, self.last, self.compiling = row, last, compiling
        self.matcher: Matcher | None = None
        self.ready = False  # the sampler has the mask of the next token
        self.error = ""
        self.cost_ns = 0  # of the last mask
        self.sat_out = 0  # steps in a row

    @property
    def complete(self) -> bool:
        """Nothing may follow."""
        return self.matcher is not None and self.matcher.stopped


class RowGrammars:
    """`pending` has the sampler whose masks are filled. `vocabulary` is made when the first grammar comes."""

    def __init__(
        self, pending: PendingAdmits, vocabulary: Callable[[], Vocabulary], counters: Counters | None
    ) -> None:
        self._pending, self._vocabulary, self._counters = pending, vocabulary, counters
        self._grammars: Grammars | None = None
        self._rows: dict[int, RowGrammar] = {}
        self._unmasked: list[RowGrammar] = []  # whose mask is to be made
        self._compiler: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def close(self) -> None:
        """Waits for a compilation that is under way."""
        if self._compiler is not None:
            self._compiler.shutdown(cancel_futures=True)

    def of(self, row: int) -> RowGrammar | None:
        return self._rows.get(row)

    def assign(self, assign: Assign, text: str) -> None:
        """A row has a new sequence, with this grammar or none ("")."""
        self.vacate(assign.row)
        if text:
            ids = assign.output or assign.prompt
            compiling = self._compile(text, assign.output)
            self._rows[assign.row] = RowGrammar(assign.row, int.from_bytes(ids[-4:], sys.byteorder), compiling)

    def vacate(self, row: int) -> None:
        if self._rows:
            self._rows.pop(row, None)

    # ---- in a thread ----------------------------------------------------------------------------------------

    def _compile(self, text: str, output: bytes) -> Future[tuple[Matcher, int]]:
        if self._compiler is None:
            sys.setswitchinterval(background.SWITCH_S)
            self._compiler = ThreadPoolExecutor(1, background.PREFIX + "grammars")
        return self._compiler.submit(self._make_matcher, text, output)

    def _make_matcher(self, text: str, output: bytes) -> tuple[Matcher, int]:
        """Behind the output that there is already, and the time in ns."""
        begun_ns = time.clock_gettime_ns(_NS)
        if self._grammars is None:
            self._grammars = Grammars(self._vocabulary())
        matcher = self._grammars.matcher(text)
        matcher.replay(memoryview(output).cast("i").tolist())
        return matcher, time.clock_gettime_ns(_NS) - begun_ns

    # ---- in the loop ----------------------------------------------------------------------------------------

    def hold_back(self, chosen: list[int]) -> dict[int, RowGrammar]:
        """By position, rows that sit out this step; in `chosen` they become -1. Those with an `error` must fail."""
        late = [grammar for grammar in self._rows.values() if not self._is_ready(grammar)]
        held = {chosen.index(grammar.row): grammar for grammar in late if grammar.row in chosen}
        for b, grammar in held.items():
            chosen[b] = -1
            grammar.sat_out += 1
        if held and self._counters is not None:
            self._counters.add(SamplingCounter.SAT_OUT, len(held))
        return held

    def _is_ready(self, grammar: RowGrammar) -> bool:
        """Now, perhaps."""
        if grammar.matcher is None and not grammar.error and grammar.compiling.done():
            self._begin(grammar)
            if grammar.matcher is not None:
                self._pending.apply((grammar.row,))
                self._make_mask(grammar)
        return grammar.ready

    def _begin(self, grammar: RowGrammar) -> None:
        try:
            grammar.matcher, spent_ns = grammar.compiling.result()
        except (GrammarError, ModuleNotFoundError) as error:
            grammar.error = str(error)
            return
        grammar.error = grammar.matcher.error
        if self._counters is not None:
            self._counters.add(SamplingCounter.COMPILES)
            self._counters.add(SamplingCounter.COMPILE_NS, spent_ns)

    def take(self, grammar: RowGrammar, token: int) -> bool:
        """A row's next token; false if its grammar does not allow it (see `error`)."""
        assert grammar.matcher is not None
        grammar.last, grammar.ready, grammar.sat_out = token, False, 0
        taken = grammar.matcher.take(token)
        grammar.error = grammar.matcher.error
        self._unmasked.append(grammar)
        return taken

    def make_masks(self, waiting: Callable[[], bool]) -> None:
        """Until all are made, or a step has been `waiting` for longer than a few of them take. To be called when all
        rows are admitted to the sampler."""
        if not self._unmasked:
            return
        until_ns = time.clock_gettime_ns(_NS) + _PATIENCE_NS
        self._unmasked.sort(key=_urgency, reverse=True)
        while self._unmasked:
            grammar = self._unmasked[-1]
            if self._rows.get(grammar.row) is grammar:  # else it has ended
                left_ns = until_ns - time.clock_gettime_ns(_NS)
                if _urgency(grammar) > left_ns and waiting():
                    return
                self._make_mask(grammar)
            self._unmasked.pop()

    def _make_mask(self, grammar: RowGrammar) -> None:
        assert grammar.matcher is not None
        begun_ns = time.clock_gettime_ns(_NS)
        grammar.matcher.fill(self._pending.mask(grammar.row))
        grammar.cost_ns = time.clock_gettime_ns(_NS) - begun_ns
        grammar.error, grammar.ready = grammar.matcher.error, not grammar.matcher.error
        if self._counters is not None:
            self._counters.add(SamplingCounter.MASKS)
            self._counters.add(SamplingCounter.MASK_NS, grammar.cost_ns)


def _urgency(grammar: RowGrammar) -> int:
    """What its mask costs, less for a row that has sat out: in the end none waits for ever."""
    return grammar.cost_ns >> grammar.sat_out


def make_vocabulary(tokenizer: Tokenizer, vocab_size: int, end_ids: Collection[int]) -> Callable[[], Vocabulary]:
    return lambda: Vocabulary(tokenizer, vocab_size, end_ids)
