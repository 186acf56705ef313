"""A step as it is planned, and the one place where it is written into a slot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.preprocess.columns import DecodeColumns
from pipeline.preprocess.sequence import Sequence
from pipeline.preprocess.wants import Wants
from pipeline.wire.step import Head, RowKind, Scores, StepColumns


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


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows of a step: those that decode, as the columns hold them until `Scheduler.commit`, and chunks."""

    decode: DecodeColumns
    chunks: tuple[Chunk, ...]

    @property
    def decode_rows(self) -> int:
        return len(self.decode)

    @property
    def rows(self) -> int:
        return len(self.decode) + len(self.chunks)

    @property
    def chunk_tokens(self) -> int:
        return sum(chunk.count for chunk in self.chunks)

    @property
    def wants(self) -> Wants:
        """Of all positions that are sampled."""
        wants = self.decode.wants.all
        for chunk in self.chunks:
            if chunk.ends_prompt:
                wants |= chunk.sequence.wants
        return wants

    def write(self, views: StepColumns, slot: int, number: int, block_size: int) -> None:
        """All of a slot but its stamps."""
        decode_rows, chunk_tokens, wants, head = self.decode_rows, self.chunk_tokens, self.wants, views.head
        self.decode.write(views, slot)
        self._write_chunks(views, block_size)
        head[Head.STEP] = number
        head[Head.ROWS] = self.rows
        head[Head.DECODE_ROWS] = decode_rows
        head[Head.CHUNK_TOKENS] = chunk_tokens
        head[Head.DEPENDS_ON_STEP] = number - 1 if decode_rows else 0
        head[Head.CHOSEN_BY_SAMPLING] = wants.choice
        head[Head.CANDIDATES] = wants.candidates
        head[Head.SCORES] = Scores.CANDIDATES if wants.scores else Scores.NONE

    def _write_chunks(self, views: StepColumns, block_size: int) -> None:
        at = 0
        for b, chunk in enumerate(self.chunks, self.decode_rows):
            sequence, start, stop = chunk.sequence, chunk.sequence.computed, chunk.stop
            tokens, positions = slice(at, at + chunk.count), np.arange(start, stop, dtype=np.int32)
            views.input_ids[tokens] = sequence.tokens[start:stop]
            views.positions[tokens] = positions
            block, offset = np.divmod(positions, block_size)
            views.slot_mapping[tokens] = np.array(sequence.blocks, np.int32)[block] * block_size + offset
            views.rows[b], views.epochs[b] = sequence.row, sequence.epoch
            views.kinds[b] = RowKind.PROMPT_END if chunk.ends_prompt else RowKind.CHUNK
            views.new_tokens[b], views.wants_logits[b] = chunk.count, sequence.wants.logits
            views.adapter[b] = 0
            views.block_tables[b, : len(sequence.blocks)] = sequence.blocks
            at += chunk.count
        if self.chunks:
            self.decode.overwrite_from(self.decode_rows)
