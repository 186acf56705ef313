"""Rows whose answers have a grammar: what each may choose next.

Grammars are compiled in a thread. Masks are made while the device computes the next step, after everything else is
sent, the cheapest first. A row whose mask is not there when its logits are sits out the step: it gets no token, its
position is computed again, and no other row waits for it. So which tokens are chosen depends on no clock.

Where only one text can follow, its tokens are drafts, and there is a mask for the position behind each of them.
"""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from model.grammar import GrammarError, Grammars, Matcher, Vocabulary
from pipeline.runtime import background
from pipeline.sampling.chooser import PendingAdmits
from pipeline.stats import Counters, SamplingCounter
from pipeline.wire.request import Assign

_PATIENCE_NS: Final = 1_000_000  # that masks may take of a step that waits
_NS = time.CLOCK_MONOTONIC


class RowGrammar:
    """Of one row."""

    __slots__ = ("_before", "begun_anew", "compiling", "cost_ns", "drafts", "error", "matcher", "most_drafts",
                 "output", "ready", "row", "sat_out", "taken", "text")  # fmt: skip

    def __init__(self, row: int, text: str, prompt: bytes, output: bytes, most_drafts: int) -> None:
        self.row, self.text, self.most_drafts = row, text, most_drafts
        self.drafts: list[int] = []  # what must follow its newest token
        self.taken = 0  # tokens of the last step, up to the one that completes it
        self.output = array("i", output)
        self._before = int.from_bytes(prompt[-4:], sys.byteorder)  # the last token of the prompt
        self.compiling: Future[tuple[Matcher, int]] = Future()
        self.begun_anew = False  # because the states that all rows of the grammar share were full
        self.matcher: Matcher | None = None
        self.ready = False  # the sampler has the mask of the next token
        self.error = ""
        self.cost_ns = 0  # of the last mask
        self.sat_out = 0  # steps in a row

    @property
    def last(self) -> int:
        """Its newest token."""
        return self.output[-1] if self.output else self._before

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

    def assign(self, assign: Assign, text: str, most_drafts: int = 0) -> None:
        """A row has a new sequence, with this grammar or none ("")."""
        self.vacate(assign.row)
        if text:
            about = assign.row, text, assign.prompt, assign.output
            grammar = self._rows[assign.row] = RowGrammar(*about, most_drafts)
            self._compile(grammar)

    def vacate(self, row: int) -> None:
        if self._rows and (grammar := self._rows.pop(row, None)) is not None:
            grammar.compiling.cancel()

    # ---- in a thread ----------------------------------------------------------------------------------------

    def _compile(self, grammar: RowGrammar) -> None:
        if self._compiler is None:
            sys.setswitchinterval(background.SWITCH_S)
            self._compiler = ThreadPoolExecutor(1, "grammars")
        text, output, fresh = grammar.text, grammar.output.tolist(), grammar.begun_anew
        grammar.compiling = self._compiler.submit(self._make_matcher, text, output, fresh)

    def _make_matcher(self, text: str, output: list[int], fresh: bool) -> tuple[Matcher, int]:
        """Behind the output that there is already, and the time in ns."""
        begun_ns = time.clock_gettime_ns(_NS)
        if self._grammars is None:
            self._grammars = Grammars(self._vocabulary())
        matcher = self._grammars.matcher(text, fresh=fresh)
        matcher.replay(output)
        return matcher, time.clock_gettime_ns(_NS) - begun_ns

    # ---- in the loop ----------------------------------------------------------------------------------------

    def hold_back(self, chosen: list[int]) -> dict[int, RowGrammar]:
        """By position, rows that sit out this step; in `chosen` they become -1. Those with an `error` must fail."""
        coming = [grammar for grammar in self._rows.values() if grammar.matcher is None and grammar.row in chosen]
        due = [grammar for grammar in coming if self._begins(grammar)]
        if due:
            self._pending.apply([grammar.row for grammar in due])
            self._unmasked += due
            self.make_masks(lambda: True)  # a first mask in time saves a step; not longer than usual
        late = [grammar for grammar in self._rows.values() if not grammar.ready and grammar.row in chosen]
        held = {chosen.index(grammar.row): grammar for grammar in late}
        for grammar in held.values():
            while grammar.row in chosen:
                chosen[chosen.index(grammar.row)] = -1
            grammar.sat_out += 1
        if held and self._counters is not None:
            self._counters.add(SamplingCounter.SAT_OUT, len(held))
        return held

    def _begins(self, grammar: RowGrammar) -> bool:
        """Its matcher, which it had none of, has come."""
        if grammar.error or not grammar.compiling.done():
            return False
        try:
            grammar.matcher, spent_ns = grammar.compiling.result()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - a library's panic is no Exception; it concerns this row only
            grammar.error = (
                str(error) if isinstance(error, GrammarError | ModuleNotFoundError) else "it did not compile"
            )
            return False
        self._note_fault(grammar)
        if self._counters is not None:
            self._counters.add(SamplingCounter.COMPILES)
            self._counters.add(SamplingCounter.COMPILE_NS, spent_ns)
        return grammar.matcher is not None and not grammar.error

    def _note_fault(self, grammar: RowGrammar) -> None:
        """The states that all rows of a grammar share may be full: the first time it is begun anew, with its own."""
        assert grammar.matcher is not None
        grammar.error = grammar.matcher.error
        if grammar.error and not grammar.begun_anew:
            grammar.begun_anew, grammar.error, grammar.matcher = True, "", None
            self._compile(grammar)

    def take(self, grammar: RowGrammar, tokens: list[int]) -> None:
        """A row's next tokens, up to one that is none; it has an `error` if its grammar does not allow them."""
        assert grammar.matcher is not None
        grammar.ready, grammar.sat_out, grammar.taken = False, 0, 0
        for token in tokens:
            if token >= 0 and not grammar.complete:
                grammar.output.append(token)
                grammar.matcher.take(token)
                grammar.taken += 1
        drafting = grammar.most_drafts and not grammar.complete
        grammar.drafts = grammar.matcher.forced(grammar.most_drafts) if drafting else []
        self._note_fault(grammar)
        if grammar.matcher is not None:
            self._unmasked.append(grammar)

    def make_masks(self, waiting: Callable[[], bool]) -> None:
        """Until all are made, or a step has been `waiting` for longer than a few of them take. To be called when all
        rows are admitted to the sampler."""
        if not self._unmasked:
            return
        until_ns = time.clock_gettime_ns(_NS) + _PATIENCE_NS
        self._unmasked = [grammar for grammar in self._unmasked if self._rows.get(grammar.row) is grammar]
        self._unmasked.sort(key=_urgency, reverse=True)
        while self._unmasked:
            grammar = self._unmasked[-1]
            left_ns = until_ns - time.clock_gettime_ns(_NS)
            if _urgency(grammar) > left_ns and waiting():
                return
            self._make_mask(grammar)
            self._unmasked.pop()

    def _make_mask(self, grammar: RowGrammar) -> None:
        assert grammar.matcher is not None
        begun_ns = time.clock_gettime_ns(_NS)
        grammar.matcher.fill(self._pending.mask(grammar.row))
        if grammar.drafts:
            self._mask_drafts(grammar.row, grammar.matcher.copy(), grammar.drafts)
        grammar.cost_ns = time.clock_gettime_ns(_NS) - begun_ns
        grammar.ready = not grammar.matcher.error
        self._note_fault(grammar)
        if self._counters is not None:
            self._counters.add(SamplingCounter.MASKS)
            self._counters.add(SamplingCounter.MASK_NS, grammar.cost_ns)

    def _mask_drafts(self, row: int, ahead: Matcher, drafts: list[int]) -> None:
        for depth, draft in enumerate(drafts, 1):
            ahead.take(draft)
            ahead.fill(self._pending.mask(row, depth))


def _urgency(grammar: RowGrammar) -> int:
    """What its mask costs, less for a row that has sat out: in the end none waits for ever."""
    return grammar.cost_ns >> grammar.sat_out
