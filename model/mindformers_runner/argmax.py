"""The argmax of each row, and its log-probability, from logits that the host can read.

The sampler's own kernels, so that an answer does not depend on where its tokens were chosen.
"""

from __future__ import annotations

import numpy as np

from model.runner import Float32, Int32
from model.sampling import SampleOutputs, Sampler, SamplingLimits, SamplingParams

_NOTHING: tuple[int, ...] = ()


class BestTokens:
    """For up to ``rows`` rows at a time. The sampler's row table holds each row twice: without and with its
    log-probability."""

    def __init__(self, vocab_size: int, rows: int) -> None:
        self._sampler = Sampler(SamplingLimits(vocab_size, max_length=1), 2 * rows)
        for row in range(2 * rows):
            self._sampler.admit(row, SamplingParams(temperature=0.0, logprobs=None if row < rows else 0), _NOTHING)
        self._plain = np.arange(rows, dtype=np.int32)
        self._telling = np.arange(rows, 2 * rows, dtype=np.int32)
        self._positions = np.zeros(rows, np.int32)
        self._out = SampleOutputs.allocate(rows)

    def choose(self, logits: Float32, token_ids: Int32, logprobs: Float32 | None) -> None:
        """``logits`` ``[n, vocab]``. Token -1, log-probability NaN: the row's logits are not finite."""
        n, out = len(logits), self._out
        rows = (self._plain if logprobs is None else self._telling)[:n]
        said = out.logprobs[:n] if logprobs is None else logprobs
        outputs = SampleOutputs(token_ids, out.status[:n], said, out.top_ids[:n], out.top_logprobs[:n])
        self._sampler.sample(logits, rows, self._positions[:n], outputs)
