"""Chooses a step's tokens, and computes the log-probabilities of those that were chosen."""

from __future__ import annotations

import dataclasses

import numpy as np

from model.sampling import SampleOutputs, Sampler, SamplingLimits, explain
from pipeline.sampling.logits_files import LogitsFiles
from pipeline.sampling.pending_admits import PendingAdmits
from pipeline.wire.step import Head, Int32, LogitsColumns

MAX_TOP_LOGPROBS = 20  # OpenAI's limit


class Chooser:
    """`token_ids` are the last step's, one per row of the batch; -1: none could be chosen."""

    def __init__(
        self, vocab_size: int, max_length: int, max_rows: int, end_ids: int, files: LogitsFiles | None
    ) -> None:
        """`end_ids`: how many end tokens the model has, which a request may forbid besides its own bias."""
        limits = SamplingLimits(vocab_size, max_length, MAX_TOP_LOGPROBS)
        limits = dataclasses.replace(limits, max_biased_tokens=limits.max_biased_tokens + end_ids)
        self._sampler = Sampler(limits, max_rows)
        self._files = files
        self.pending = PendingAdmits(self._sampler, files)
        self._out = SampleOutputs.allocate(max_rows, MAX_TOP_LOGPROBS)
        self._outs = [_leading(self._out, rows) for rows in range(max_rows + 1)]
        self._row_ids: Int32 = np.full(max_rows, -1, np.int32)  # rows to sample from, -1: skip
        self.token_ids = self._out.token_ids

    def choose(self, head: list[int], views: LogitsColumns, chosen: list[int]) -> None:
        """Fill `token_ids`; `chosen` are the rows to sample, -1: skip."""
        rows = len(chosen)
        if head[Head.ARGMAX_ON_DEVICE]:
            self.token_ids[:rows] = views.token_ids[:rows]  # -1: the row's logits were not finite
            return
        self.pending.apply(chosen)
        self._row_ids[:rows] = chosen
        row_ids, lengths, logits = self._row_ids[:rows], views.lengths[:rows], views.logits[:rows]
        if self._files is not None:
            self._files.keep(row_ids, lengths, logits)
        self._sampler.choose(logits, row_ids, lengths, self._outs[rows])

    def finish(self, head: list[int], views: LogitsColumns, rows: int) -> None:
        """What can wait until the tokens are published: their log-probabilities, and files of logits."""
        if head[Head.ARGMAX_ON_DEVICE]:
            if head[Head.LOGPROBS]:
                self._out.logprobs[:rows] = views.logprobs[:rows]
            return
        if head[Head.LOGPROBS]:
            logits, lengths = views.logits[:rows], views.lengths[:rows]
            self._sampler.compute_logprobs(logits, self._row_ids[:rows], lengths, self._outs[rows])
        if self._files is not None:  # before its client has the answer
            self._files.write(self._row_ids[:rows], self.token_ids[:rows])

    def explain(self, b: int, views: LogitsColumns) -> str:
        """Why row `b` of the batch has no token."""
        if views.head[Head.ARGMAX_ON_DEVICE]:
            return "the model's logits are not finite"
        return explain(int(self._out.status[b]), views.logits[b])

    def logprobs(self, b: int, count: int) -> tuple[float, tuple[tuple[int, float], ...]]:
        """Of row `b`'s token, and of the `count` most probable ones with their ids."""
        ids, values = self._out.top_ids[b, :count].tolist(), self._out.top_logprobs[b, :count].tolist()
        return float(self._out.logprobs[b]), tuple(zip(ids, values, strict=True))


def _leading(out: SampleOutputs, rows: int) -> SampleOutputs:
    """The first rows of the same arrays."""
    return SampleOutputs(
        out.token_ids[:rows], out.status[:rows], out.logprobs[:rows], out.top_ids[:rows], out.top_logprobs[:rows]
    )
