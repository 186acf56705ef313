"""The decode rows of the batch, as columns in batch order.

Rows that decode change by one from step to step, so a step's columns are the last step's columns plus one, and
writing them is a handful of copies, however many rows there are. A row that leaves is replaced by the last one.
Block tables are copied into a slot only where they changed since that slot was last written.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.preprocess.sequence import Sequence
from pipeline.wire.step import StepColumns


class DecodeColumns:
    """`sequences[b]` decodes at batch index `b`; `position[b]` is where its next token goes."""

    def __init__(self, max_rows: int, width: int, slots: int) -> None:
        self.sequences: list[Sequence] = []
        self.position: NDArray[np.int32] = np.zeros(max_rows, np.int32)
        self.kv_slot: NDArray[np.int32] = np.zeros(max_rows, np.int32)
        self.row: NDArray[np.int32] = np.zeros(max_rows, np.int32)
        self.epoch: NDArray[np.int32] = np.zeros(max_rows, np.int32)
        self.block_tables: NDArray[np.int32] = np.zeros((max_rows, width), np.int32)
        self._one_to_n: NDArray[np.int32] = np.arange(max_rows, dtype=np.int32)
        self._changed = np.zeros(max_rows, np.int64)  # when each block table last changed
        self._written = np.zeros(slots, np.int64)  # when each ring slot last got them
        self._now = 1

    def __len__(self) -> int:
        return len(self.sequences)

    def add(self, sequence: Sequence, block_size: int) -> None:
        """The sequence's next token is at position `computed`, in its last block, which must be there."""
        b = len(self.sequences)
        self.sequences.append(sequence)
        self.position[b] = sequence.computed
        self.row[b] = sequence.row
        self.epoch[b] = sequence.epoch
        self.block_tables[b, : len(sequence.blocks)] = sequence.blocks
        self.place(b, sequence, block_size)
        self._touch(b)

    def place(self, b: int, sequence: Sequence, block_size: int) -> None:
        """The KV slot of the next token."""
        block, offset = divmod(int(self.position[b]), block_size)
        if block < len(sequence.blocks):
            self.kv_slot[b] = sequence.blocks[block] * block_size + offset

    def extend(self, b: int, block: int, block_size: int) -> None:
        """Row `b` has got another block; its next token is the first in there."""
        sequence = self.sequences[b]
        self.block_tables[b, len(sequence.blocks) - 1] = block
        self.kv_slot[b] = block * block_size
        self._touch(b)

    def remove(self, sequence: Sequence) -> None:
        b = self.sequences.index(sequence)
        last = self.sequences.pop()
        if last is sequence:
            return
        self.sequences[b] = last
        n = len(self.sequences)
        for column in (self.position, self.kv_slot, self.row, self.epoch, self.block_tables):
            column[b] = column[n]
        self._touch(b)

    def at_block_start(self, block_size: int) -> list[int]:
        """Batch indices whose next token needs a new block."""
        n = len(self.sequences)
        return np.flatnonzero(self.position[:n] % block_size == 0).tolist() if n else []

    def write(self, views: StepColumns, slot: int) -> None:
        """The columns of this step, into batch and token indices 0 to n - 1."""
        n = len(self.sequences)
        views.positions[:n] = self.position[:n]
        views.slot_mapping[:n] = self.kv_slot[:n]
        np.add(self.position[:n], 1, out=views.valid_length[:n])
        views.q_seq_lens[:n] = 1
        views.gather_index[:n] = self._one_to_n[:n]
        views.rows[:n] = self.row[:n]
        views.epochs[:n] = self.epoch[:n]
        views.sampled[:n] = 1
        for b in np.flatnonzero(self._changed[:n] > self._written[slot]):
            views.block_tables[b] = self.block_tables[b]
        self._written[slot] = self._now
        self._now += 1

    def overwrite_from(self, first: int) -> None:
        """The slot written last has other block tables from batch index `first` on."""
        self._changed[first:] = self._now

    def advance(self) -> None:
        """Every row has had its token scheduled."""
        n = len(self.sequences)
        self.position[:n] += 1
        self.kv_slot[:n] += 1
        for sequence in self.sequences:
            sequence.computed += 1
            sequence.pending += 1

    def _touch(self, b: int) -> None:
        self._changed[b] = self._now
