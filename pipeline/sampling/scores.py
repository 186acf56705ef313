"""Scores of prompts: from the device's sums and candidates to records for the front."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.sampling.rows import Rows, TextState
from pipeline.wire.delta import PromptScores
from pipeline.wire.step import Head, LogitsColumns

_PIECE = 32
"""Tokens of a record, which then has 6 KB at most: the front takes 1 to 3 ms to format one."""


def score_records(head: list[int], views: LogitsColumns, rows: Rows) -> list[bytes]:
    """Of all positions of the step that are scored: the last ones. Those of requests that are gone are left out."""
    end, k = head[Head.SAMPLES], head[Head.CANDIDATES]
    first = end - head[Head.SCORED]
    sums, best = views.log_sum_exp[first:end], slice(first * k, end * k)
    ids, top_ids = views.targets[first:end], views.ids[best].reshape(-1, k)
    # rounded as those of tokens that are chosen: the same logit gives the same float
    logprobs = (views.target_logits[first:end] - sums).astype(np.float32)
    top_logprobs = (views.best_logits[best].reshape(-1, k) - sums[:, None]).astype(np.float32)
    records = []
    for state, piece in _pieces(views, first, end, rows):
        position, most = int(views.lengths[first + piece.start]) - 1, state.prompt_logprobs
        arrays = ids[piece], logprobs[piece], top_ids[piece, :most], top_logprobs[piece, :most]
        records.append(PromptScores(state.request, state.attempt, position, *arrays).pack())
    return records


def _pieces(views: LogitsColumns, first: int, end: int, rows: Rows) -> Iterator[tuple[TextState, slice]]:
    """Whose positions they are, counted from `first`; those of a row follow each other."""
    of_rows = views.rows[first:end]
    borders = [0, *(np.flatnonzero(np.diff(of_rows)) + 1).tolist(), len(of_rows)]
    of_runs = [first + begin for begin in borders[:-1]]
    selected = rows.select(views.rows[of_runs].tolist(), views.epochs[of_runs].tolist())
    for row, begin, stop in zip(selected, borders[:-1], borders[1:], strict=True):
        for at in range(begin, stop, _PIECE) if row >= 0 else ():
            yield rows.state(row), slice(at, min(at + _PIECE, stop))
