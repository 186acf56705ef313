"""How many drafts the rows of a step may carry, beside its tokens and prompts.

Sampling has the drafts, since it knows the newest tokens, and says with its results which rows are likely to have
some. Prompts come first: drafts get what a step has left. The more rows, the more a position costs: a small batch
waits for the weights, a large one computes.
"""

from __future__ import annotations

from dataclasses import dataclass

_FEW_ROWS = 4  # with up to so many, as many drafts as the server has
_BY_ROWS = ((16, 3), (32, 1))  # up to so many rows, so many drafts each


@dataclass(frozen=True, slots=True)
class DraftLimits:
    """Of a server that speculates. The default is one that does not."""

    most: int = 0  # of a row, in any step
    max_rows: int = 0  # steps with more rows that decode have none
    samples: int = 0  # positions that can be sampled in a step without prompts
    beside_prompts: int = 0  # and in one with some
    logit_rows: int = 0  # of which so many can bring their logits

    def per_row(self, rows: int) -> int:
        """In a step with so many rows that decode."""
        if rows > self.max_rows:
            return 0
        if rows <= _FEW_ROWS:
            return self.most
        return min(self.most, next((most for up_to, most in _BY_ROWS if rows <= up_to), 1))


class DraftRoom:
    """What a step that has so many rows, tokens and rows with logits has left."""

    def __init__(
        self,
        limits: DraftLimits,
        budget: int,
        samples: int,
        *,
        decoding: int,
        prompts: int,
        tokens: int,
        logit_rows: int,
    ) -> None:
        samples = min(samples, limits.beside_prompts if prompts else limits.samples)
        self._positions = max(0, min(budget - tokens, samples - decoding - prompts))
        self._logits = max(0, limits.logit_rows - logit_rows)

    def offer(self, wish: int, sharing: int, *, logits: bool) -> int:
        """For a row that would like as many, one of `sharing` that have not been asked."""
        room = min(self._positions, self._logits) if logits else self._positions
        return min(wish, -(-room // sharing))

    def take(self, drafts: int, *, logits: bool) -> None:
        self._positions -= drafts
        self._logits -= drafts * logits
