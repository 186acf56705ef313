"""A step's inputs for the runner: arrays of this process, filled from the token board and from the step's slot.

Nothing that a device reads is written by another process while it computes, and the slot is only read. Zero copy
remain the block tables, the only large input; a column of tokens is copied once, 4 bytes a token.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ipc import Field, Layout
from model.runner import Bucket, RunnerFacts, StepInputs
from pipeline.inference._step import StepArrays, TokenBoard
from pipeline.wire.step import Int32, Shapes, StepColumns

_CACHE_LINE = 64


def make_board(shapes: Shapes) -> TokenBoard:
    """Of no tokens yet."""
    rows = shapes.max_rows
    return TokenBoard(
        np.zeros(rows, np.int32), np.zeros(rows, np.int32), np.zeros((rows, 1 + shapes.drafts), np.int32)
    )


class StepInputArrays:
    """Of one slot of the step ring: a device may still read those of the slot before."""

    def __init__(self, views: StepColumns, board: TokenBoard, shapes: Shapes, facts: RunnerFacts) -> None:
        own = _allocate(shapes)
        self._views, self._own = views, own
        self.fetched: Int32 = own.fetched  # [L] sampled positions whose logits are wanted, the first `describe()`
        buckets = tuple((bucket.tokens, bucket.rows, bucket.samples) for bucket in facts.buckets)
        slot = (
            views.rows, views.epochs, views.kinds, views.new_tokens, views.most_drafts, views.limits,
            views.wants_logits, views.input_ids, views.positions, views.slot_mapping, views.targets,
            views.block_tables,
        )  # fmt: skip
        self.filled = StepArrays(board, facts.block_size, buckets, views.head, *slot, *own)

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
            Field("fetched", "int32", (shapes.logit_rows,), "sampled positions whose logits are wanted"),
        ],
    )
    raw = np.zeros(layout.size + _CACHE_LINE, np.uint8)
    return layout.views(raw[-raw.ctypes.data % _CACHE_LINE :])
