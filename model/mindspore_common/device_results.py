"""What is wanted of logits that stay on the device: small graphs compute it there, and only that comes to the host.

Which of equal logits a device puts first is its own affair; here they are in order of their ids. So a device brings
more candidates than are asked for, and the host puts equal ones in order. Where equal ones go on beyond what was
brought, the row itself is fetched.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype
from numpy.typing import NDArray

from model.layout import is_argmax_alone
from model.mindspore_common.host_results import HostResults
from model.runner import Best, Float32, Int32


class GatherRows(nn.Cell):
    """Logits ``[S, vocab]`` and rows ``[n]`` to ``[n, vocab]``."""

    def construct(self, logits, rows):
        return ops.gather(logits, rows, 0)


class Argmax(nn.Cell):
    """Logits ``[S, vocab]`` to the largest one's id ``[S]``, -1 where they are not finite."""

    def __init__(self) -> None:
        super().__init__()
        self.argmax = ops.Argmax(axis=-1, output_type=ms.int32)

    def construct(self, logits):
        ids = self.argmax(logits)
        return ops.select(ops.isfinite(logits).all(-1), ids, ops.full_like(ids, -1))


class Largest(nn.Cell):
    """Logits ``[S, vocab]`` to the largest one's id and it itself, ``[S]`` both; -1 and NaN where they are not
    finite."""

    def __init__(self) -> None:
        super().__init__()
        self.argmax = Argmax()

    def construct(self, logits):
        ids, largest = self.argmax(logits), logits.max(axis=-1)
        return ids, ops.select(ids >= 0, largest, ops.full_like(largest, float("nan")))


class Scores(nn.Cell):
    """Logits ``[S, vocab]`` and targets ``[S, 1]`` to: the ``k`` largest, and their ids, ``[S, k]``; whether all are
    finite ``[S]``; the logarithm of the sum of ``exp(logit - largest)`` ``[S]``; the targets' logits ``[S, 1]``."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def construct(self, logits, targets):
        best, ids = ops.topk(logits, self.k)
        finite = ops.isfinite(logits).all(-1)
        log_sum = ops.log(ops.exp(logits - best[:, 0:1]).sum(-1))
        return best, ids, finite, log_sum, ops.gather_elements(logits, 1, targets)


class DeviceResults:
    """Over a tensor ``[S, vocab]``, float32, on the device; ``S`` may be another one in each step."""

    def __init__(self, vocab_size: int, candidates: int) -> None:
        """``candidates``: as many as may be asked for."""
        self._vocab_size = vocab_size
        self._brought = min(candidates + 1, vocab_size)
        self._host = HostResults(vocab_size)
        logits = Tensor(shape=[None, None], dtype=mstype.float32)
        self._rows, self._argmax, self._largest = GatherRows(), Argmax(), Largest()
        self._scores = Scores(self._brought)
        self._rows.set_inputs(logits, Tensor(shape=[None], dtype=mstype.int32))
        self._argmax.set_inputs(logits)
        self._largest.set_inputs(logits)
        self._scores.set_inputs(logits, Tensor(shape=[None, 1], dtype=mstype.int32))

    def fetch(self, output: Tensor, rows: Int32, logits: Float32) -> None:
        """Rows must be in range."""
        if len(rows):
            np.copyto(logits, self._rows(output, Tensor(rows)).asnumpy())
        else:
            self._argmax(output).asnumpy()  # waits for the step

    def fetch_best(self, output: Tensor, best: Best, targets: Int32 | None) -> None:
        n = len(best.ids)
        if is_argmax_alone(best, targets):
            best.ids[:, 0] = self._argmax(output).asnumpy()[:n]
            return
        if best.ids.shape[1] == 1 and targets is None and best.log_sum_exp is None and best.logits is not None:
            ids, largest = self._largest(output)  # as each rank says it
            best.ids[:, 0], best.logits[:, 0] = ids.asnumpy()[:n], largest.asnumpy()[:n]
            return
        wanted = np.zeros((output.shape[0], 1), np.int32)
        if targets is not None:
            wanted[:n, 0] = targets
        arrays = [tensor.asnumpy()[:n] for tensor in self._scores(output, Tensor(wanted))]
        self._write(output, best, *arrays)

    def _write(
        self,
        output: Tensor,
        best: Best,
        logits: Float32,
        ids: Int32,
        finite: NDArray[np.bool_],
        log_sum: Float32,
        target_logit: Float32,
    ) -> None:
        k = best.ids.shape[1]
        order = np.lexsort((ids, -logits))[:, :k]
        best.ids[:] = np.where(finite[:, None], np.take_along_axis(ids, order, 1), -1)
        if best.logits is not None:
            best.logits[:] = np.where(finite[:, None], np.take_along_axis(logits, order, 1), np.nan)
        if best.log_sum_exp is not None:
            total = logits[:, 0].astype(np.float64) + log_sum
            best.log_sum_exp[:] = np.where(finite, total, np.nan)
        if best.target_logit is not None:
            best.target_logit[:] = np.where(finite, target_logit[:, 0], np.nan)
        if self._brought < self._vocab_size:
            self._settle_ties(output, best, np.flatnonzero(finite & (logits[:, k - 1] == logits[:, -1])))

    def _settle_ties(self, output: Tensor, best: Best, rows: NDArray[np.intp]) -> None:
        """Rows of whose equal logits perhaps not those of the lowest ids were brought."""
        for row in rows.astype(np.int32):
            one = slice(row, row + 1)
            logits = self._rows(output, Tensor(row.reshape(1))).asnumpy()
            self._host.find(logits, Best(best.ids[one], None if best.logits is None else best.logits[one]))
