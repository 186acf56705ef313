"""The server's side of a step: lists into segments, a command over TCP, and a wait for one byte."""

from __future__ import annotations

import socket
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from scripts.bench.overhead.replaced import segments as seg


@dataclass(slots=True)
class Entry:
    """A request that has, or waits for, a row."""

    tokens: list[int]
    limit: int  # prompt and output tokens
    row: int = -1
    blocks: list[int] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        return len(self.tokens) >= self.limit


class Batch:
    """One step at a time, each from beginning to end; `step` returns when the agent has answered."""

    def __init__(
        self, agent: socket.socket, segments: seg.Segments, sizes: seg.Sizes, blocks: int, batches: tuple[int, ...]
    ) -> None:
        self.waiting: deque[Entry] = deque()
        self._agent, self._segments, self._sizes = agent, segments, sizes
        self._rows: list[Entry | None] = [None] * sizes.rows
        self._free = list(range(blocks - 1, 0, -1))
        self._batches = sorted(batches)

    @property
    def has_work(self) -> bool:
        return bool(self.waiting) or any(self._rows)

    def step(self) -> list[tuple[Entry, int, float]]:
        """A prompt if there is one and a row for it, else a token for every row; who got which token and logit."""
        if self.waiting and None in self._rows:
            return self._prefill(self.waiting.popleft())
        return self._decode()

    def _prefill(self, entry: Entry) -> list[tuple[Entry, int, float]]:
        sizes, segments, prompt = self._sizes, self._segments, len(entry.tokens)
        entry.row = self._rows.index(None)
        self._rows[entry.row] = entry
        self._grow(entry)
        segments.array(seg.INPUT_IDS)[entry.row, :prompt] = entry.tokens
        segments.array(seg.VALID_LENGTH)[entry.row] = prompt
        segments.array(seg.CURRENT_INDEX)[0] = entry.row
        slots = [self._slot(entry, position) for position in range(prompt)] + [-1] * (sizes.length - prompt)
        segments.array(seg.BLOCK_TABLES, (1, sizes.width))[:] = np.array([self._table(entry)], np.int32)
        segments.array(seg.SLOT_MAPPING)[:] = np.array(slots, np.int32)
        self._ask(seg.prefill_command((1, sizes.length), (1, sizes.width), (sizes.length,)))
        return self._collect([entry])

    def _decode(self) -> list[tuple[Entry, int, float]]:
        sizes, segments = self._sizes, self._segments
        used = 1 + max(row for row, entry in enumerate(self._rows) if entry)
        batch = next(size for size in self._batches if size >= used)
        rows = self._rows[:batch]
        ids = segments.array(seg.INPUT_IDS)
        lengths = segments.array(seg.VALID_LENGTH)
        generation, mask = [], []
        tables, slots, valid = [], [], []
        for row, entry in enumerate(rows):
            valid.append(1 if entry else 0)
            generation.append([0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
            mask.append(valid[-1])
            if entry is None:
                tables.append([0] * sizes.width)
                slots.append(-1)
                continue
            self._grow(entry)
            position = len(entry.tokens) - 1
            ids[row, position] = entry.tokens[-1]
            lengths[row] = len(entry.tokens)
            tables.append(self._table(entry))
            slots.append(self._slot(entry, position))
        segments.array(seg.GENERATION)[:batch] = np.array(generation)
        segments.array(seg.MASK)[:batch] = np.array(mask)
        segments.array(seg.BLOCK_TABLES, (batch, sizes.width))[:] = np.array(tables, np.int32)
        segments.array(seg.SLOT_MAPPING, (batch,))[:] = np.array(slots, np.int32)
        self._ask(seg.decode_command(batch, valid, (batch, sizes.width), (batch,)))
        return self._collect([entry for entry in rows if entry])

    def _ask(self, command: bytes) -> None:
        """Send, and stand still until the agent says that it is done. Raises ConnectionError when it is gone."""
        self._agent.sendall(command)
        if self._agent.recv(1) != b"1":
            raise ConnectionError("the agent is gone")

    def _collect(self, entries: list[Entry]) -> list[tuple[Entry, int, float]]:
        outputs = self._segments.array(seg.OUTPUTS).tolist()
        logits = self._segments.array(seg.LOGITS).tolist()
        news = []
        for entry in entries:
            token = outputs[entry.row]
            entry.tokens.append(token)
            news.append((entry, token, logits[entry.row]))
            if entry.finished:
                self._rows[entry.row] = None
                self._free.extend(entry.blocks)
        return news

    def _grow(self, entry: Entry) -> None:
        while len(entry.blocks) * self._sizes.block_size < len(entry.tokens):
            entry.blocks.append(self._free.pop())

    def _table(self, entry: Entry) -> list[int]:
        return entry.blocks + [0] * (self._sizes.width - len(entry.blocks))

    def _slot(self, entry: Entry, position: int) -> int:
        block, offset = divmod(position, self._sizes.block_size)
        return entry.blocks[block] * self._sizes.block_size + offset
