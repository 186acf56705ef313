"""Rows of a step that bring tokens of an answer once more, as attention met these at first.

Attention has a kernel for rows of one token and another for longer ones, which sum in another order. What is rounded
behind it can then differ by far more than the last bit, and a text that is resumed, or preempted, go on differently.
So tokens that were sampled become rows of their own again, over the same block table: with that all is as it was to
the bit, whoever else is in the step, and the matrices are still read once for all of them. No step may bring tokens
of the same prompt beside them: a longer row takes the whole block that it ends in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.runner import Int32


@dataclass(frozen=True, slots=True)
class Rows:
    """As in `StepInputs`."""

    valid_length: Int32  # [B]
    q_seq_lens: Int32  # [B]
    block_tables: Int32  # [B, W]


def one_by_one(rows: Rows, sampled: Int32) -> Rows | None:
    """More rows for the same tokens; None: they are right as they are. ``sampled``: as in `StepInputs`."""
    fresh = rows.q_seq_lens
    pieces = np.where(sampled, fresh, 1).clip(1)  # a row of padding stays one
    if (pieces == 1).all():
        return None
    row = np.repeat(np.arange(len(fresh)), pieces)
    split = pieces[row] > 1
    piece = np.arange(len(row)) - (np.cumsum(pieces) - pieces)[row]
    lengths = np.where(split, 1, fresh[row])
    valid = np.where(split, (rows.valid_length - fresh)[row] + piece + 1, rows.valid_length[row])
    return Rows(valid.astype(np.int32), lengths.astype(np.int32), rows.block_tables[row])
