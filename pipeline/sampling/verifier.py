"""Which of a step's positions hold, and what the rows' next tokens may be.

A row's positions are its newest token's, and those of the drafts behind it. The token that is chosen at a position
holds if the drafts before it were what was chosen there: so the text is the one that would come without drafts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from model.sampling import Drafter
from pipeline.wire.request import Assign
from pipeline.wire.step import Head, Int32, LogitsColumns, Shapes


class Verifier:
    """What the last step came to, by row instead of by position: ``[S]`` each, of which the first `count` count."""

    def __init__(self, shapes: Shapes, max_length: int) -> None:
        samples, drafts = shapes.samples, shapes.drafts
        self.drafter = Drafter(shapes.max_rows, max_length, drafts) if drafts else None
        self.count = 0
        self.drafted = 0  # drafts that its rows brought
        self.at: slice | Int32 = slice(0)  # each one's first position
        self.starts: Int32 = np.arange(samples, dtype=np.int32)  # the same
        self.taken: Int32 = np.ones(samples, np.int32)  # tokens that hold
        self.counts: Int32 = np.ones(samples, np.int32)  # the newest of them, and drafts behind it
        self.ids: Int32 = np.zeros((samples, 1 + drafts), np.int32)  # which these are
        self.wishes: Int32 = np.zeros(samples, np.int32)  # drafts that it is likely to have
        self._rows: Int32 = np.zeros(samples, np.int32)
        self._wished = self._promised = False

    def verify(self, chosen: list[int], token_ids: Int32, views: LogitsColumns) -> None:
        """`chosen`: the rows that are sampled at each position, -1: skip; `token_ids`: what was chosen there."""
        positions = self.count = len(chosen)
        self.at = slice(positions)
        if self.drafter is None:
            self.ids[:positions, 0] = token_ids[:positions]
            return
        rows, drafts = self._rows[:positions], views.drafts[:positions]
        rows[:] = chosen
        self._promised = self._wished
        self.count, self._wished = self.drafter.follow(
            rows, token_ids[:positions], drafts, self.starts, self.taken, self.counts, self.ids, self.wishes
        )
        self.drafted = positions - self.count
        if self.drafted:
            self.at = self.starts[: self.count]

    def draft(self, row: int, drafts: list[int], wish: int) -> None:
        """Behind the newest token of a row that the drafter has none for."""
        self.counts[row] = 1 + len(drafts)
        self.ids[row, 1 : 1 + len(drafts)] = drafts
        self.wishes[row] = wish
        self._wished |= wish > 0

    def row_at(self, position: int) -> int:
        """Which row has its first position there."""
        return position if isinstance(self.at, slice) else self.at.tolist().index(position)

    def spans(self) -> Iterator[tuple[int, int]]:
        """Of each row: its first position, and how many tokens hold."""
        return zip(self.starts[: self.count].tolist(), self.taken[: self.count].tolist(), strict=True)

    def is_awaited(self, head: list[int]) -> bool:
        """Inference may wait for this step's tokens: it does not know them, or the next step has room for drafts.
        That it may have if preprocess knew of a wish, in this step's results or in those before."""
        return bool(head[Head.CHOSEN_BY_SAMPLING] or head[Head.DRAFTS] or self._wished or self._promised)

    def begin(self, row: int, most: int) -> None:
        """It has a new sequence, which may have so many drafts."""
        if self.drafter is not None:
            self.drafter.begin(row, most)

    def read(self, assign: Assign) -> None:
        """The tokens of that sequence."""
        if self.drafter is not None:
            self.drafter.read(assign.row, assign.limit, assign.prompt, assign.output)
