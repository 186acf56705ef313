"""A step as it is planned, and the one place where it is written into a slot.

Its decode rows are columns in batch order. Which tokens they bring, inference knows; a step says which rows there
are, and what each may do. Writing that is a handful of copies, however many rows there are. A row that leaves is
replaced by the last one. Block tables are copied into a slot only where they changed since that slot was last
written.
"""

from __future__ import annotations

import functools
import operator
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.preprocess.sequence import NOTHING, Sequence, Wants
from pipeline.wire.step import DRAW_NUMBERS, Float64, Head, Int32, RowKind, StepColumns, UInt64


class Together:
    """What several rows want, as they come and go; there are only a few different wants."""

    def __init__(self) -> None:
        self._rows: Counter[Wants] = Counter()
        self._all: Wants | None = NOTHING  # None: to be found anew

    def add(self, wants: Wants) -> None:
        self._rows[wants] += 1
        self._all = None

    def remove(self, wants: Wants) -> None:
        self._rows[wants] -= 1
        if not self._rows[wants]:
            del self._rows[wants]
        self._all = None

    @property
    def all(self) -> Wants:
        if self._all is None:
            self._all = functools.reduce(operator.or_, self._rows, NOTHING)
        return self._all


class DecodeColumns:
    """`sequences[b]` decodes at batch index `b`; `position[b]` is where its next token goes, if none of the drafts
    before it is accepted."""

    def __init__(self, max_rows: int, width: int, slots: int, block_size: int) -> None:
        self.sequences: list[Sequence] = []
        self.wants = Together()
        self.drafts = 0  # of all rows, in the next step
        self.position: Int32 = np.zeros(max_rows, np.int32)
        self.row: Int32 = np.zeros(max_rows, np.int32)
        self.epoch: Int32 = np.zeros(max_rows, np.int32)
        self.limit: Int32 = np.zeros(max_rows, np.int32)
        self.under_way: Int32 = np.zeros(max_rows, np.int32)  # drafts of steps that are not done
        self.capacity: Int32 = np.zeros(max_rows, np.int32)  # tokens that its blocks hold
        self.most_drafts: Int32 = np.zeros(max_rows, np.int32)
        self.wants_logits: Int32 = np.zeros(max_rows, np.int32)
        self.adapter: Int32 = np.zeros(max_rows, np.int32)
        self.seeds: UInt64 = np.zeros(max_rows, np.uint64)
        self.draws: Float64 = np.zeros((max_rows, DRAW_NUMBERS))
        self.block_tables: Int32 = np.zeros((max_rows, width), np.int32)
        self._changed = np.zeros(max_rows, np.int64)  # when each block table last changed
        self._written = np.zeros(slots, np.int64)  # when each ring slot last got them
        self._now = 1
        self._block_size = block_size

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def _columns(self) -> tuple[NDArray[Any], ...]:
        """Of each row; `position` first."""
        return (
            self.position, self.row, self.epoch, self.limit, self.under_way, self.capacity, self.most_drafts,
            self.wants_logits, self.adapter, self.seeds, self.draws, self.block_tables,
        )  # fmt: skip

    def add(self, sequence: Sequence) -> None:
        """The sequence's next token is at position `computed`."""
        b = len(self.sequences)
        self.sequences.append(sequence)
        self.wants.add(sequence.wants)
        values = (
            sequence.computed, sequence.row, sequence.epoch, sequence.limit, sum(sequence.carried),
            len(sequence.blocks) * self._block_size, 0, sequence.wants.logits_wanted, sequence.adapter.slot,
            sequence.draw_seed, sequence.draw,
        )  # fmt: skip
        for column, value in zip(self._columns, values, strict=False):
            column[b] = value
        self.block_tables[b, : len(sequence.blocks)] = sequence.blocks
        self._touch(b)

    def extend(self, b: int, block: int) -> None:
        """Row `b` has got another block."""
        self.block_tables[b, len(self.sequences[b].blocks) - 1] = block
        self.capacity[b] += self._block_size
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

    def lacking_blocks(self) -> list[int]:
        """Batch indices whose next token may need a new block."""
        n = len(self.sequences)
        reach = np.minimum(self.position[:n] + self.under_way[:n], self.limit[:n] - 1)
        return np.flatnonzero(reach >= self.capacity[:n]).tolist() if n else []

    def carry(self, sequence: Sequence, drafts: int) -> None:
        """The row may have so many in the next step; of others nothing is said."""
        self.most_drafts[self.sequences.index(sequence)] = drafts
        self.drafts += drafts

    def carry_none(self) -> None:
        if self.drafts:
            self.most_drafts[:], self.drafts = 0, 0

    def write(self, views: StepColumns, slot: int, *, draws: bool = False) -> None:
        """Into batch indices 0 to n - 1. `draws`: a row of the step has some."""
        n = len(self.sequences)
        views.rows[:n] = self.row[:n]
        views.epochs[:n] = self.epoch[:n]
        views.kinds[:n] = RowKind.DECODE
        views.most_drafts[:n] = self.most_drafts[:n]
        views.limits[:n] = self.limit[:n]
        views.wants_logits[:n] = self.wants_logits[:n]
        views.adapter[:n] = self.adapter[:n]
        views.sampled[:n] = 1
        if draws:
            views.seeds[:n] = self.seeds[:n]
            views.draws[:n] = self.draws[:n]
        for b in np.flatnonzero(self._changed[:n] > self._written[slot]):
            views.block_tables[b] = self.block_tables[b]
        self._written[slot] = self._now
        self._now += 1

    def overwrite_from(self, first: int) -> None:
        """The slot written last has other block tables from batch index `first` on."""
        self._changed[first:] = self._now

    def advance(self) -> None:
        """Every row has had a token scheduled."""
        n = len(self.sequences)
        self.position[:n] += 1
        self.under_way[:n] += self.most_drafts[:n]
        for sequence, drafts in zip(self.sequences, self.most_drafts[:n].tolist(), strict=True):
            sequence.computed += 1
            sequence.schedule(drafts)

    def settle(self, sequence: Sequence, drafts: int, more: int) -> None:
        """A step with so many drafts is done: it brought so many tokens more than the one that was scheduled, or -1
        if not even that."""
        b = self.sequences.index(sequence)
        self.under_way[b] -= drafts
        self.position[b] += more

    def _touch(self, b: int) -> None:
        self._changed[b] = self._now


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next tokens of a sequence that are known and not computed."""

    sequence: Sequence
    count: int

    @property
    def stop(self) -> int:
        return self.sequence.computed + self.count

    @property
    def ends_prompt(self) -> bool:
        """Its last position is sampled."""
        return self.stop == self.sequence.known

    @property
    def kind(self) -> RowKind:
        if self.sequence.scores_next:
            return RowKind.SCORE
        return RowKind.PROMPT_END if self.ends_prompt else RowKind.CHUNK

    @property
    def targets(self) -> Int32:
        """The token behind each; -1 behind the last one of the prompt, which is sampled."""
        targets = np.full(self.count, -1, np.int32)
        following = self.sequence.tokens[self.sequence.computed + 1 : min(self.stop + 1, self.sequence.known)]
        targets[: len(following)] = following
        return targets


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows of a step: those that decode, as the columns hold them until `Scheduler.commit`, and chunks."""

    decode: DecodeColumns
    chunks: tuple[Chunk, ...]
    fixed: int = 0  # as `Head.FIXED`

    @property
    def wants(self) -> Wants:
        """Of all positions that are sampled."""
        wants = self.decode.wants.all
        for chunk in self.chunks:
            if chunk.ends_prompt:
                wants |= chunk.sequence.wants
            if chunk.kind is RowKind.SCORE:
                wants |= chunk.sequence.prompt_wants
        return wants

    def write(self, views: StepColumns, slot: int, number: int, block_size: int) -> None:
        """All of a slot but its stamps."""
        decode_rows, wants, head = len(self.decode), self.wants, views.head
        self.decode.write(views, slot, draws=wants.draws)
        self._write_chunks(views, decode_rows, block_size)
        head[Head.STEP] = number
        head[Head.ROWS] = decode_rows + len(self.chunks)
        head[Head.DECODE_ROWS] = decode_rows
        head[Head.CHUNK_TOKENS] = sum(chunk.count for chunk in self.chunks)
        head[Head.DEPENDS_ON_STEP] = number - 1 if decode_rows else 0
        head[Head.CHOSEN_BY_SAMPLING] = wants.choice
        head[Head.CANDIDATES] = wants.candidates
        head[Head.SCORES] = wants.scores
        head[Head.DRAFTS] = self.decode.drafts
        head[Head.DRAWS] = wants.draws
        head[Head.FIXED] = self.fixed

    def _write_chunks(self, views: StepColumns, first: int, block_size: int) -> None:
        at = 0
        for b, chunk in enumerate(self.chunks, first):
            sequence, start, stop = chunk.sequence, chunk.sequence.computed, chunk.stop
            tokens, positions = slice(at, at + chunk.count), np.arange(start, stop, dtype=np.int32)
            views.input_ids[tokens] = sequence.tokens[start:stop]
            views.positions[tokens] = positions
            block, offset = np.divmod(positions, block_size)
            views.slot_mapping[tokens] = np.array(sequence.blocks, np.int32)[block] * block_size + offset
            views.rows[b], views.epochs[b] = sequence.row, sequence.epoch
            views.kinds[b] = kind = chunk.kind
            if kind is RowKind.SCORE:
                views.targets[tokens] = chunk.targets
            views.new_tokens[b], views.wants_logits[b] = chunk.count, sequence.wants.logits_wanted
            views.adapter[b], views.sampled[b] = sequence.adapter.slot, start >= sequence.prompt
            views.seeds[b], views.draws[b] = sequence.draw_seed, sequence.draw
            views.block_tables[b, : len(sequence.blocks)] = sequence.blocks
            at += chunk.count
        if self.chunks:
            self.decode.overwrite_from(first)
