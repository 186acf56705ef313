"""What is wanted of logits of which each rank has a part: they bring together rows, or what is best of each part.

Every rank gets the same numbers, so that all know the tokens, and go on without hearing of each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model.checkpoint.arrays import aligned_zeros
from model.families.shard import Shard
from model.mindspore_common.ranks import Gather
from model.runner import Best, Float32, Float64, Int32

if TYPE_CHECKING:
    from model.mindspore_common.execution import Results

_MOST_SIZES = 32  # for which arrays are kept: the largest have some megabytes


class RankResults:
    """``local``: of this rank's logits, which are as many as ``widest``; the last rank may have fewer."""

    def __init__(self, local: Results, gather: Gather, vocab_size: int, rank: int, widest: int) -> None:
        self._local, self._gather, self._first = local, gather, rank * widest
        starts = range(0, gather.count * widest, widest)
        self._parts = [(start, min(start + widest, vocab_size)) for start in starts]
        self._size, self._widest = self._parts[rank][1] - self._first, widest
        self._shares: dict[tuple[int, int, bool, bool], _Shares] = {}
        self._sent, self._received = _rows_of_logits(gather.count, 0)
        self._nothing = np.zeros(0, np.int32), np.zeros((0, self._size), np.float32)

    def fetch(self, output: Any, rows: Int32, logits: Float32) -> None:
        """Rows must be in range. All ranks get all of them."""
        n = len(rows)
        if n * self._widest > len(self._sent):
            self._sent, self._received = _rows_of_logits(self._gather.count, n * self._widest)
        own = self._sent[: n * self._size]
        self._local.fetch(output, rows, own.reshape(n, self._size))
        every = self._received[: self._gather.count * n * self._widest].reshape(self._gather.count, -1)
        self._gather(self._sent[: n * self._widest], every)
        for (first, end), part in zip(self._parts, every, strict=True):
            logits[:, first:end] = part[: n * (end - first)].reshape(n, end - first)

    def fetch_best(self, output: Any, best: Best, targets: Int32 | None) -> None:
        n, k = best.ids.shape
        if not n:
            self._local.fetch(output, *self._nothing)  # waits for the step
            return
        key = n, k, best.log_sum_exp is not None, targets is not None
        if len(self._shares) > _MOST_SIZES:
            self._shares.clear()
        shares = self._shares.get(key) or self._shares.setdefault(key, _Shares(self._gather.count, *key))
        self._find(output, shares.own, targets)
        self._gather(shares.sent, shares.received)
        shares.write(best)

    def _find(self, output: Any, own: Best, targets: Int32 | None) -> None:
        """The best of this rank's part, by ids of the whole vocabulary; a target of another rank's is -inf."""
        if targets is None:
            self._local.fetch_best(output, own, None)
        else:
            local = targets - self._first
            elsewhere = (local < 0) | (local >= self._size)
            self._local.fetch_best(output, own, np.where(elsewhere, 0, local).astype(np.int32))
            assert own.target_logit is not None
            own.target_logit[elsewhere] = -np.inf
        if self._first:
            np.add(own.ids, self._first, out=own.ids, where=own.ids >= 0)


def results_of(shard: Shard, local: Callable[[int], Results]) -> Results:
    """Of a shard's logits. ``local``: how those of so many ids are looked at where they are."""
    first, end = shard.vocabulary
    own = local(end - first)
    if shard.ranks == 1:
        return own
    return RankResults(own, Gather(shard.ranks), shard.whole.vocab_size, shard.rank, shard.widest)


def _rows_of_logits(ranks: int, length: int) -> tuple[Float32, Float32]:
    """What a rank sends, and what it gets from all."""
    return np.zeros(length, np.float32), np.zeros(ranks * length, np.float32)


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
