"""The decode rows of the batch, as columns in batch order.

Which tokens they bring, inference knows; a step says which rows there are, and what each may do. Writing that is a
handful of copies, however many rows there are. A row that leaves is replaced by the last one. Block tables are copied
into a slot only where they changed since that slot was last written.
"""

from __future__ import annotations

import numpy as np

from pipeline.preprocess.sequence import Sequence
from pipeline.preprocess.wants import Together
from pipeline.wire.step import Int32, RowKind, StepColumns


class DecodeColumns:
    """`sequences[b]` decodes at batch index `b`; `position[b]` is where its next token goes, if none of the drafts
    before it is accepted."""

    def __init__(self, max_rows: int, width: int, slots: int) -> None:
        self.sequences: list[Sequence] = []
        self.wants = Together()
        self.position: Int32 = np.zeros(max_rows, np.int32)
        self.row: Int32 = np.zeros(max_rows, np.int32)
        self.epoch: Int32 = np.zeros(max_rows, np.int32)
        self.limit: Int32 = np.zeros(max_rows, np.int32)
        self.most_drafts: Int32 = np.zeros(max_rows, np.int32)
        self.wants_logits: Int32 = np.zeros(max_rows, np.int32)
        self.adapter: Int32 = np.zeros(max_rows, np.int32)
        self.block_tables: Int32 = np.zeros((max_rows, width), np.int32)
        self._changed = np.zeros(max_rows, np.int64)  # when each block table last changed
        self._written = np.zeros(slots, np.int64)  # when each ring slot last got them
        self._now = 1

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def _columns(self) -> tuple[Int32, ...]:
        """Of each row; `position` first."""
        return (
            self.position, self.row, self.epoch, self.limit, self.most_drafts, self.wants_logits, self.adapter,
            self.block_tables,
        )  # fmt: skip

    def add(self, sequence: Sequence) -> None:
        """The sequence's next token is at position `computed`."""
        b = len(self.sequences)
        self.sequences.append(sequence)
        self.wants.add(sequence.wants)
        scalars = (sequence.computed, sequence.row, sequence.epoch, sequence.limit, 0, sequence.wants.logits, 0)
        for column, value in zip(self._columns, scalars, strict=False):
            column[b] = value
        self.block_tables[b, : len(sequence.blocks)] = sequence.blocks
        self._touch(b)

    def extend(self, b: int, block: int) -> None:
        """Row `b` has got another block."""
        self.block_tables[b, len(self.sequences[b].blocks) - 1] = block
        self._touch(b)

    def remove(self, sequence: Sequence) -> None:
        b = self.sequences.index(sequence)
        self.wants.remove(sequence.wants)
        last = self.sequences.pop()
        if last is sequence:
            return
        self.sequences[b] = last
        n = len(self.sequences)
        for column in self._columns:
            column[b] = column[n]
        self._touch(b)

    def at_block_start(self, block_size: int) -> list[int]:
        """Batch indices whose next token needs a new block."""
        n = len(self.sequences)
        return np.flatnonzero(self.position[:n] % block_size == 0).tolist() if n else []

    def write(self, views: StepColumns, slot: int) -> None:
        """Into batch indices 0 to n - 1."""
        n = len(self.sequences)
        views.rows[:n] = self.row[:n]
        views.epochs[:n] = self.epoch[:n]
        views.kinds[:n] = RowKind.DECODE
        views.most_drafts[:n] = self.most_drafts[:n]
        views.limits[:n] = self.limit[:n]
        views.wants_logits[:n] = self.wants_logits[:n]
        views.adapter[:n] = self.adapter[:n]
        for b in np.flatnonzero(self._changed[:n] > self._written[slot]):
            views.block_tables[b] = self.block_tables[b]
        self._written[slot] = self._now
        self._now += 1

    def overwrite_from(self, first: int) -> None:
        """The slot written last has other block tables from batch index `first` on."""
        self._changed[first:] = self._now

    def advance(self) -> None:
        """Every row has had a token scheduled."""
        self.position[: len(self.sequences)] += 1
        for sequence in self.sequences:
            sequence.computed += 1
            sequence.pending += 1

    def _touch(self, b: int) -> None:
        self._changed[b] = self._now
