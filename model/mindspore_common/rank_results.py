"""What is wanted of logits of which each rank has a part: they bring together rows, or what is best of each part.

Every rank gets the same numbers, so that all know the tokens, and go on without hearing of each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.checkpoint.arrays import aligned_zeros
from model.mindspore_common.host_results import HostResults
from model.mindspore_common.ranks import Gather
from model.runner import Best, Float32, Float64, Int32

_MOST_SIZES = 4096  # for which arrays are kept


class RankResults:
    """``first``, ``end``: the ids whose logits this rank has; ``widest``: most of any rank."""

    def __init__(self, gather: Gather, first: int, end: int, widest: int) -> None:
        self._gather, self._first, self._size, self._widest = gather, first, end - first, widest
        self._host = HostResults(self._size)
        self._shares: dict[tuple[int, int, bool, bool], _Shares] = {}

    def fetch(self, output: Any, rows: Int32, logits: Float32) -> None:
        """Rows must be in range. All ranks get all of them."""
        own = np.zeros((len(rows), self._widest), np.float32)
        own[:, : self._size] = output.asnumpy()[rows]
        every = np.empty((self._gather.count, *own.shape), np.float32)
        self._gather(own, every)
        for number, part in enumerate(every):
            there = logits[:, number * self._widest : (number + 1) * self._widest]
            there[:] = part[:, : there.shape[1]]

    def fetch_best(self, output: Any, best: Best, targets: Int32 | None) -> None:
        n, k = best.ids.shape
        if not n:
            output.asnumpy()  # waits for the step
            return
        key = n, k, best.log_sum_exp is not None, targets is not None
        if len(self._shares) > _MOST_SIZES:
            self._shares.clear()
        shares = self._shares.get(key) or self._shares.setdefault(key, _Shares(self._gather.count, *key))
        self._find(output.asnumpy(), shares.own, targets)
        self._gather(shares.sent, shares.received)
        shares.write(best)

    def _find(self, logits: Float32, own: Best, targets: Int32 | None) -> None:
        """The best of this rank's part, by ids of the whole vocabulary; a target of another rank's is -inf."""
        if targets is None:
            self._host.find(logits, own)
        else:
            local = targets - self._first
            elsewhere = (local < 0) | (local >= self._size)
            self._host.find(logits, own, np.where(elsewhere, 0, local).astype(np.int32))
            assert own.target_logit is not None
            own.target_logit[elsewhere] = -np.inf
        if self._first:
            np.add(own.ids, self._first, out=own.ids, where=own.ids >= 0)


class _Shares:
    """What a rank says of ``n`` positions, in one piece, and what all say."""

    def __init__(self, ranks: int, n: int, k: int, sums: bool, targets: bool) -> None:
        fields: list[Any] = [("logits", np.float32, (n, k)), ("ids", np.int32, (n, k))]
        if targets:
            fields.append(("target", np.float32, (n,)))
        if sums:
            fields.insert(0, ("sums", np.float64, (n,)))
        record = np.dtype(fields, align=True)
        self.sent: NDArray[Any] = aligned_zeros((record.itemsize,), np.uint8)
        self.received: NDArray[Any] = aligned_zeros((ranks, record.itemsize), np.uint8)
        own, every = self.sent.view(record)[0], self.received.view(record)[:, 0]
        self.own = Best(own["ids"], own["logits"], own["sums"] if sums else None, own["target"] if targets else None)
        self._ids: Int32 = every["ids"]  # [ranks, n, k]
        self._logits: Float32 = every["logits"]
        self._sums: Float64 | None = every["sums"] if sums else None
        self._targets: Float32 | None = every["target"] if targets else None

    def write(self, best: Best) -> None:
        """Of all ranks' candidates the best ones; nothing but -1 and NaN where some logits are not finite."""
        k = best.ids.shape[1]
        finite = self._ids[:, :, 0].min(0) >= 0
        if k == 1:
            order = self._logits[:, :, 0].argmax(0)[:, None]  # of equal ones the first rank's, which has lower ids
        else:
            order = np.argsort(-_in_rows(self._logits), axis=1, kind="stable")[:, :k]
        np.copyto(best.ids, np.take_along_axis(_in_rows(self._ids), order, 1))
        best.ids[~finite] = -1
        if best.logits is not None:
            np.copyto(best.logits, np.take_along_axis(_in_rows(self._logits), order, 1))
            best.logits[~finite] = np.nan
        if best.log_sum_exp is not None and self._sums is not None:
            best.log_sum_exp[:] = np.where(finite, _log_sum_exp(self._sums), np.nan)
        if best.target_logit is not None and self._targets is not None:
            best.target_logit[:] = np.where(finite, self._targets.max(0), np.nan)


def _in_rows(every: NDArray[Any]) -> NDArray[Any]:
    """``[ranks, n, k]`` to ``[n, ranks * k]``: in the order of ids, equal ones among them."""
    ranks, n, k = every.shape
    return every.transpose(1, 0, 2).reshape(n, ranks * k)


def _log_sum_exp(parts: Float64) -> Float64:
    """``[ranks, n]`` to ``[n]``."""
    largest = parts.max(0)
    total: Float64 = largest + np.log(np.exp(parts - largest).sum(0))
    return total
