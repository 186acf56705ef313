"""A step's arrays, made before the first step: inputs for the runner, filled from the token board and from the step's
slot; and what it yielded, in a slot of the logits ring.

Inputs are arrays of this process. Nothing that a device reads is written by another process while it computes, and
the slot is only read. Zero copy remain the block tables, the only large input; a column of tokens is copied once, 4
bytes a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipc import Field, Layout
from model.runner import Best, Bucket, StepInputs
from pipeline.inference._step import SampleColumns, StepArrays, TokenBoard
from pipeline.wire.step import Int32, LogitsColumns, Scores, Shapes, StepColumns

_CACHE_LINE = 64
_MOST_SIZES = 4096  # for which views of an outcome are kept


def make_board(shapes: Shapes) -> TokenBoard:
    """Of no tokens yet."""
    rows = shapes.max_rows
    return TokenBoard(
        np.zeros(rows, np.int32), np.zeros(rows, np.int32), np.zeros((rows, 1 + shapes.drafts), np.int32)
    )


class StepInputArrays:
    """Of one slot of the step ring: a device may still read those of the slot before. `buckets`: those that are
    compiled."""

    def __init__(
        self, views: StepColumns, board: TokenBoard, shapes: Shapes, block_size: int, buckets: Sequence[Bucket]
    ) -> None:
        own = _allocate(shapes)
        self._views, self._own = views, own
        self.sample_row: Int32 = own.sample_row  # [S] of each sampled position: its row in the step
        self.fetched: Int32 = own.fetched  # [L] sampled positions whose logits are wanted, the first `describe()`
        sizes = tuple((bucket.tokens, bucket.rows, bucket.samples) for bucket in buckets)
        slot = (
            views.rows, views.epochs, views.kinds, views.new_tokens, views.most_drafts, views.limits,
            views.wants_logits, views.input_ids, views.positions, views.slot_mapping, views.targets,
            views.block_tables,
        )  # fmt: skip
        self.filled = StepArrays(board, block_size, sizes, views.head, *slot, *own)

    def inputs(self, bucket: Bucket) -> StepInputs:
        """The leading part of the arrays that a bucket uses."""
        own, t, b = self._own, bucket.tokens, bucket.rows
        return StepInputs(
            input_ids=own.input_ids[:t],
            positions=own.positions[:t],
            slot_mapping=own.slot_mapping[:t],
            valid_length=own.valid_length[:b],
            q_seq_lens=own.q_seq_lens[:b],
            sample_index=own.sample_index[: bucket.samples],
            adapter=self._views.adapter[:b],
            block_tables=self._views.block_tables[:b],
            sampled=self._views.sampled[:b],
        )


def _allocate(shapes: Shapes) -> Any:
    """Each array on a cache line of its own, as the slots have them."""
    t, b = shapes.token_budget, shapes.max_rows
    layout = Layout(
        "inputs",
        [
            Field("input_ids", "int32", (t,), "token ids"),
            Field("positions", "int32", (t,), "position of each token in its sequence"),
            Field("slot_mapping", "int32", (t,), "physical KV slot of each token; -1: padding"),
            Field("valid_length", "int32", (b,), "context length, new tokens included"),
            Field("q_seq_lens", "int32", (b,), "new tokens of the row; 0: padding"),
            Field("sample_index", "int32", (shapes.samples,), "index in T of each sampled position"),
            Field("sample_row", "int32", (shapes.samples,), "its row in the step"),
            Field("fetched", "int32", (shapes.logit_rows,), "sampled positions whose logits are wanted"),
        ],
    )
    return layout.views(own_memory(layout))


def own_memory(layout: Layout) -> NDArray[np.uint8]:
    """Zeros for the arrays of a slot, taken from the system when they are touched."""
    raw = np.zeros(layout.size + _CACHE_LINE, np.uint8)
    return raw[-raw.ctypes.data % _CACHE_LINE :]


class Outcome:
    """Of one slot of the logits ring; it serves every step that comes by. Views are made once for each size that
    occurs."""

    __slots__ = ("_best", "_targets", "columns", "drawn", "views")

    def __init__(self, views: LogitsColumns) -> None:
        self.views = views
        self.columns, self.drawn = (
            SampleColumns(
                views.rows, views.epochs, views.lengths, views.targets, views.drafts, views.logit_rows, tokens
            )
            for tokens in (views.ids, views.tokens)
        )
        self._best: dict[tuple[int, int, int], Best] = {}
        self._targets: Int32 = np.zeros(len(views.targets), np.int32)

    def best(self, samples: int, candidates: int, scores: int) -> Best:
        """Where the device's best go."""
        key = samples, candidates, scores
        if len(self._best) > _MOST_SIZES:
            self._best.clear()
        return self._best.get(key) or self._best.setdefault(key, self._make(*key))

    def _make(self, samples: int, candidates: int, scores: int) -> Best:
        views, count, shape = self.views, samples * candidates, (samples, candidates)
        ids = views.ids[:count].reshape(shape)
        if not scores:
            return Best(ids)
        logits = views.best_logits[:count].reshape(shape)
        if scores == Scores.LOGITS:
            return Best(ids, logits)
        targets = views.target_logits[:samples] if scores == Scores.TARGETS else None
        return Best(ids, logits, views.log_sum_exp[:samples], targets)

    def targets(self, samples: int, scores: int) -> Int32 | None:
        """A token for every position: for those that are sampled it is any."""
        if scores != Scores.TARGETS:
            return None
        return np.maximum(self.views.targets[:samples], 0, out=self._targets[:samples])
