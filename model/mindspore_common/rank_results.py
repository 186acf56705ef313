"""What is wanted of logits of which each rank has a part: they bring together rows, or what is best of each part.

Every rank gets the same numbers, so that all know the tokens, and go on without hearing of each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.mindspore_common.host_results import HostResults
from model.mindspore_common.ranks import Gather
from model.runner import Best, Float32, Float64, Int32


class RankResults:
    """``first``, ``end``: the ids whose logits this rank has; ``widest``: most of any rank."""

    def __init__(self, gather: Gather, first: int, end: int, widest: int) -> None:
        self._gather, self._first, self._size, self._widest = gather, first, end - first, widest
        self._host = HostResults(self._size)

    def fetch(self, output: Any, rows: Int32, logits: Float32) -> None:
        """Rows must be in range. All ranks get all of them."""
        own = np.zeros((len(rows), self._widest), np.float32)
        own[:, : self._size] = output.asnumpy()[rows]
        for number, part in enumerate(self._gather(own)):
            there = logits[:, number * self._widest : (number + 1) * self._widest]
            there[:] = part[:, : there.shape[1]]

    def fetch_best(self, output: Any, best: Best, targets: Int32 | None) -> None:
        n, k = best.ids.shape
        own = np.zeros(n, _record(k))
        sums = None if best.log_sum_exp is None else np.empty(n)
        self._find(output.asnumpy(), own, sums, targets)
        every = self._gather(own)
        finite = (every["ids"][:, :, 0] >= 0).all(0)
        _write_candidates(every, best, finite)
        if best.log_sum_exp is not None:
            best.log_sum_exp[:] = np.where(finite, _log_sum_exp(every["log_sum_exp"]), np.nan)
        if best.target_logit is not None:
            best.target_logit[:] = np.where(finite, every["target_logit"].max(0), np.nan)

    def _find(self, logits: Float32, own: NDArray[Any], sums: Float64 | None, targets: Int32 | None) -> None:
        """The best of this rank's part, by ids of the whole vocabulary; a target of another rank's is -inf."""
        n, k = own["ids"].shape
        ids, values = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
        if targets is None:
            self._host.find(logits, Best(ids, values, sums))
        else:
            found, local = np.empty(n, np.float32), targets - self._first
            here = (local >= 0) & (local < self._size)
            self._host.find(logits, Best(ids, values, sums, found), np.where(here, local, 0).astype(np.int32))
            own["target_logit"] = np.where(here, found, -np.inf)
        own["ids"] = np.where(ids < 0, -1, ids + self._first)
        own["logits"] = values
        if sums is not None:
            own["log_sum_exp"] = sums


def _record(k: int) -> np.dtype[Any]:
    """What a rank says of a position."""
    fields: list[Any] = [("log_sum_exp", np.float64), ("target_logit", np.float32)]
    return np.dtype([*fields, ("ids", np.int32, (k,)), ("logits", np.float32, (k,))])


def _write_candidates(every: NDArray[Any], best: Best, finite: NDArray[np.bool_]) -> None:
    """The ranks' candidates lie in the order of their ids, equal ones among them: a stable order keeps that."""
    n, k = best.ids.shape
    ids, logits = (every[name].transpose(1, 0, 2).reshape(n, len(every) * k) for name in ("ids", "logits"))
    order = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    best.ids[:] = np.where(finite[:, None], np.take_along_axis(ids, order, 1), -1)
    if best.logits is not None:
        best.logits[:] = np.where(finite[:, None], np.take_along_axis(logits, order, 1), np.nan)


def _log_sum_exp(parts: Float64) -> Float64:
    """``[ranks, n]`` to ``[n]``."""
    largest = parts.max(0)
    total: Float64 = largest + np.log(np.exp(parts - largest).sum(0))
    return total
