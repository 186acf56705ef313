"""What is computed of a step's logits where they are, so that only small results cross to the host.

One graph each, with dynamic shapes, compiled when it is first used. Not run on a device so far: tested on CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype
from numpy.typing import NDArray

from model.runner import Best

Array = NDArray[Any]


def _logits() -> Tensor:
    return Tensor(shape=[None, None], dtype=mstype.float32)


def _indices() -> Tensor:
    return Tensor(shape=[None], dtype=mstype.int32)


class PickRows(nn.Cell):
    """Rows ``[n, vocab]`` of logits ``[S, vocab]``."""

    def __init__(self) -> None:
        super().__init__()
        self.set_inputs(_logits(), _indices())

    def construct(self, logits, rows):
        return ops.gather(logits, rows, 0)


class Argmax(nn.Cell):
    """``[S]``; -1 where a row is not finite."""

    def __init__(self) -> None:
        super().__init__()
        self.set_inputs(_logits())

    def construct(self, logits):
        best = ops.argmax(logits, -1).astype(mstype.int32)
        finite = ops.isfinite(logits).astype(mstype.float32).min(axis=-1)
        return ops.select(finite > 0, best, ops.full_like(best, -1))


class Candidates(nn.Cell):
    """Whether each row is finite ``[S]``, and its k largest logits with their ids ``[S, k]``."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self._k = k
        self.set_inputs(_logits())

    def construct(self, logits):
        values, ids = ops.topk(logits, self._k, -1)
        return ops.isfinite(logits).astype(mstype.float32).min(axis=-1), values, ids


class Scores(nn.Cell):
    """Log-sum-exp, and the logit of a target, of each row ``[S]``."""

    def __init__(self) -> None:
        super().__init__()
        self.set_inputs(_logits(), _indices())

    def construct(self, logits, targets):
        most = logits.max(axis=-1)
        log_sum_exp = most + ops.log(ops.exp(logits - most.expand_dims(-1)).sum(axis=-1))
        return log_sum_exp, ops.gather_elements(logits, 1, targets.expand_dims(-1)).squeeze(-1)


def sort_candidates(finite: Array, values: Array, ids: Array, best: Best) -> None:
    """Largest first, equal ones by id: a device may have them in any order."""
    order = np.lexsort((ids, -values))
    best.ids[:] = np.where(finite[:, None] > 0, np.take_along_axis(ids, order, 1), -1)
    if best.logits is not None:
        best.logits[:] = np.where(finite[:, None] > 0, np.take_along_axis(values, order, 1), np.nan)
