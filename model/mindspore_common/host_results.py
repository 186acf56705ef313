"""What is wanted of logits that lie in the host's memory: rows, candidates, scores.

The sampler's own kernels, so that an answer does not depend on where its tokens were chosen.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from model.runner import Best, Float32, Int32
from model.sampling import BestOfRows


class HostResults:
    """Over a tensor in the host's memory; nothing of it is copied but what is wanted."""

    def __init__(self, vocab_size: int) -> None:
        self._kernel = BestOfRows(vocab_size)

    def fetch(self, output: Any, rows: Int32, logits: Float32) -> None:
        """Rows must be in range."""
        np.take(output.asnumpy(), rows, axis=0, out=logits, mode="clip")  # "raise" would copy once more

    def fetch_best(self, output: Any, best: Best, targets: Int32 | None) -> None:
        self.find(output.asnumpy(), best, targets)

    def find(self, logits: Float32, best: Best, targets: Int32 | None = None) -> None:
        """Of the first rows of ``logits`` ``[any, vocab]``."""
        self._kernel.find(logits, best.ids, best.logits, best.log_sum_exp, targets, best.target_logit)
