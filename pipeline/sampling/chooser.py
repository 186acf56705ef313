"""Chooses a step's tokens, and computes the log-probabilities of those that were chosen.

Where the device has chosen, its answer is taken as it is; only positions whose logits it brought pass the kernels.
New sequences are admitted to the sampler in time for their first token, but after more urgent tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from model import grammar
from model.sampling import SampleOutputs, Sampler, SamplingLimits, SamplingParams, explain
from pipeline.sampling.logits_files import LogitsFiles
from pipeline.sampling.verifier import Verifier
from pipeline.wire.request import Assign, count_ids
from pipeline.wire.step import MAX_CANDIDATES, Float32, Head, Int32, LogitsColumns, Shapes

AT_ONCE = 1 << 15  # tokens that the sampler may read after each step: 0.5 to 1 ms
ROW_COST = 1 << 9  # cost of a row whose tokens are not read, in such tokens

UInt32 = NDArray[np.uint32]

Best = tuple[tuple[int, float], ...]
"""Token ids and their log-probabilities, the most probable first."""


class Chooser:
    """`token_ids` are the last step's, one per sampled position; -1: none could be chosen."""

    def __init__(
        self, shapes: Shapes, max_length: int, end_ids: int, files: LogitsFiles | None, verifier: Verifier
    ) -> None:
        """`end_ids`: how many end tokens the model has, which a request may forbid besides its own bias."""
        limits, most = SamplingLimits(shapes.vocab_size, max_length, MAX_CANDIDATES), shapes.logit_rows
        limits = dataclasses.replace(limits, max_biased_tokens=limits.max_biased_tokens + end_ids)
        self._sampler = Sampler(limits, shapes.max_rows, masks=grammar.available(), drafts=shapes.drafts)
        self._files = files
        self.pending = PendingAdmits(self._sampler, files, verifier)
        self._out = SampleOutputs.allocate(most, MAX_CANDIDATES)  # by row of logits
        self._outs = [_leading(self._out, rows) for rows in range(most + 1)]
        self._row_ids: Int32 = np.full(most, -1, np.int32)  # of rows of logits; -1: skip
        self._lengths: Int32 = np.zeros(most, np.int32)
        self._drafts: Int32 = np.zeros(most, np.int32)
        self.token_ids: Int32 = np.full(shapes.samples, -1, np.int32)
        self._logit_rows: list[int] = []  # of each position of the step: where its logits are; -1: nowhere
        self._candidates = 0
        self._scored: tuple[int, LogitsColumns] | None = None  # positions of the step, and its slot
        self._scores: list[float] = []  # of each position's token, where the device has chosen
        self._best: Float32 = np.zeros((0, 0), np.float32)  # of all candidates
        self._best_ids: Int32 = np.zeros((0, 0), np.int32)  # which these are

    def choose(self, head: list[int], views: LogitsColumns, chosen: list[int]) -> None:
        """Fill `token_ids`; `chosen` are the rows to sample at each position, -1: skip."""
        positions, logit_rows, self._candidates = len(chosen), head[Head.LOGIT_ROWS], head[Head.CANDIDATES]
        if head[Head.DRAWS]:
            self.token_ids[:positions] = views.tokens[:positions]
        elif self._candidates:  # -1: the position's logits were not finite
            self.token_ids[:positions] = views.ids[: positions * self._candidates : self._candidates]
        self._logit_rows = views.logit_rows[:positions].tolist()
        if not logit_rows:
            return
        self.pending.apply(chosen)
        where = [b for b, at in enumerate(self._logit_rows) if at >= 0]
        if head[Head.DRAWS]:  # those that could not be drawn are the last
            where.sort(key=self._logit_rows.__getitem__)
        self._row_ids[:logit_rows] = [chosen[b] for b in where]
        np.take(views.lengths, where, out=self._lengths[:logit_rows])
        drafts = self._drafts_behind(head, views, where)
        row_ids, lengths, logits = self._of_logits(views, logit_rows)
        if self._files is not None:
            self._files.keep(row_ids, lengths, logits)
        self._sampler.choose(logits, row_ids, lengths, self._outs[logit_rows], drafts)
        if head[Head.CHOSEN_BY_SAMPLING] or not self._candidates:  # else inference goes on with the device's
            self.token_ids[where] = self._out.token_ids[:logit_rows]

    def _drafts_behind(self, head: list[int], views: LogitsColumns, where: list[int]) -> Int32 | None:
        """Of these positions, in the order of their logits; None: the step has none."""
        if not head[Head.DRAFTS]:
            return None
        drafts = np.take(views.drafts, where, out=self._drafts[: len(where)])
        if head[Head.DRAWS]:  # a draft stands at the next position, of which logits may not have been brought
            drafts[:-1][np.diff(where) != 1] = -1
        return drafts

    def _of_logits(self, views: LogitsColumns, logit_rows: int) -> tuple[Int32, Int32, Float32]:
        return self._row_ids[:logit_rows], self._lengths[:logit_rows], views.logits[:logit_rows]

    def finish(self, head: list[int], views: LogitsColumns) -> None:
        """What can wait until the tokens are published: their log-probabilities, and files of logits."""
        self._scores, self._scored = [], (head[Head.SAMPLES] - head[Head.SCORED], views)
        if not (logit_rows := head[Head.LOGIT_ROWS]):
            return
        row_ids, lengths, logits = self._of_logits(views, logit_rows)
        self._sampler.compute_logprobs(logits, row_ids, lengths, self._outs[logit_rows])
        if self._files is not None:  # before its client has the answer
            self._files.write(row_ids, self._out.token_ids[:logit_rows])

    def _read_scores(self, wanted: int) -> None:
        """What the device says of all that are sampled; log-probabilities are rounded as the sampler rounds them.
        `wanted`: so many of the most probable ones, too."""
        assert self._scored is not None
        positions, views = self._scored
        if positions == self._candidates == 1 and not wanted:  # numpy's calls take ten times as long
            self._scores = [float(np.float32(views.best_logits[0] - views.log_sum_exp[0]))]
            return
        count, shape = positions * self._candidates, (positions, self._candidates)
        logprobs = views.best_logits[:count].reshape(shape) - views.log_sum_exp[:positions, None]
        self._best, self._best_ids = logprobs.astype(np.float32), views.ids[:count].reshape(shape)
        if self._candidates == 1:
            self._scores = self._best[:, 0].tolist()
        else:
            chosen = np.argmax(self._best_ids == self.token_ids[:positions, None], axis=1)
            self._scores = self._best[np.arange(positions), chosen].tolist()

    def explain(self, b: int, views: LogitsColumns, *, masked: bool = False) -> str:
        """Why position `b` of the batch has no token. `masked`: it has a grammar."""
        at = self._logit_rows[b]
        if at < 0:
            return "the model's logits are not finite"
        return explain(int(self._out.status[at]), views.logits[at], masked=masked)

    def logprobs(self, b: int, count: int) -> tuple[float, Best]:
        """Of the token at position `b`, and of the `count` most probable ones."""
        at = self._logit_rows[b]
        if at >= 0:
            ids, values = self._out.top_ids[at, :count].tolist(), self._out.top_logprobs[at, :count].tolist()
            return float(self._out.logprobs[at]), tuple(zip(ids, values, strict=True))
        if not self._scores:  # of the first row that wants to know
            self._read_scores(count)
        if not count:
            return self._scores[b], ()
        ids, values = self._best_ids[b, :count].tolist(), self._best[b, :count].tolist()
        return self._scores[b], tuple(zip(ids, values, strict=True))

    def raw_logit(self, b: int, views: LogitsColumns) -> float:
        """Of the token at position `b`."""
        at, token = self._logit_rows[b], self.token_ids[b]
        if at >= 0:
            return float(views.logits[at, token])
        candidates = slice(b * self._candidates, (b + 1) * self._candidates)
        return float(views.best_logits[candidates][views.ids[candidates] == token][0])


class PendingAdmits:
    """Rows whose new sequence is not admitted to the sampler yet."""

    def __init__(self, sampler: Sampler, files: LogitsFiles | None, verifier: Verifier) -> None:
        self._sampler, self._files, self._verifier = sampler, files, verifier
        self._by_row: dict[int, tuple[Assign, SamplingParams]] = {}

    def add(self, assign: Assign, params: SamplingParams, most_drafts: int = 0) -> None:
        """A row has a new sequence, whose tokens are to be chosen by these parameters."""
        self._by_row[assign.row] = assign, params
        self._verifier.begin(assign.row, most_drafts)

    def mask(self, row: int, depth: int = 0) -> UInt32:
        """What the sampler may choose for a row that is admitted, behind so many drafts; to be filled."""
        return self._sampler.mask(row, depth)

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
            reads = params.penalised or self._verifier.drafter is not None
            read = count_ids(assign.prompt) + count_ids(assign.output) if reads else 0
            cost += ROW_COST + read

    def _admit_to_sampler(self, assign: Assign, params: SamplingParams) -> None:
        prompt, output = assign.prompt_ids, assign.output_ids
        self._sampler.admit(assign.row, params, prompt, output, seed=assign.seed, end_ids=assign.end_ids)
        self._verifier.read(assign)
        if self._files is not None:
            self._files.admit(assign.row, prompt, output)


def _leading(out: SampleOutputs, rows: int) -> SampleOutputs:
    """The first rows of the same arrays."""
    return SampleOutputs(
        out.token_ids[:rows], out.status[:rows], out.logprobs[:rows], out.top_ids[:rows], out.top_logprobs[:rows]
    )
