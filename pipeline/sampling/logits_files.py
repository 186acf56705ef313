"""Logits as files, for comparing two runs (llm-serving's task 2). For diagnosis: it is slow.

One file per row whose next token has a position that is a multiple of 100: float32 ``[1, vocab]``, named
``{unix time}_{ids}_{position}.npy``. ``ids`` are the first 20 characters of the sequence's token ids, the first as it
is, each later one as ``.0`` and the id. Rows have files of their own, so that two runs can be compared however their
batches were composed. ``scripts/tools/check_logits.py`` compares them.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

INTERVAL = 100
_NAME_LENGTH = 20
_NAMED_IDS = 8  # more do not fit into a name: the first has a digit at least, each later one three characters

log = logging.getLogger("ringserve.sampling")


class LogitsFiles:
    """`keep` before the sampler edits the logits, `write` after the step's tokens are published."""

    def __init__(self, directory: Path, max_rows: int) -> None:
        """Makes the directory, accessible to its owner only: logits reveal prompts. Raises OSError."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory: Path | None = directory
        self._heads: list[list[int]] = [[] for _ in range(max_rows)]  # the first ids of each row's sequence
        self._kept: list[tuple[str, NDArray[np.float32]]] = []
        self._last_ns = 0

    def admit(self, row: int, prompt_ids: NDArray[np.int32], output_ids: NDArray[np.int32]) -> None:
        """A row has got a sequence."""
        self._heads[row] = [*prompt_ids[:_NAMED_IDS].tolist(), *output_ids[:_NAMED_IDS].tolist()][:_NAMED_IDS]

    def keep(self, rows: NDArray[np.int32], positions: NDArray[np.int32], logits: NDArray[np.float32]) -> None:
        """`positions` are those of the tokens that `logits` ``[rows, vocab]`` are for; row -1: skip."""
        for b in np.flatnonzero((rows >= 0) & (positions % INTERVAL == 0)).tolist():
            name = f"{ids_text(self._heads[int(rows[b])])}_{int(positions[b])}"
            self._kept.append((name, logits[b : b + 1].copy()))

    def write(self, rows: Any, token_ids: Any) -> None:
        """Write the logits that were kept; `token_ids` are the tokens that were chosen."""
        for name, logits in self._kept:
            self._save(name, logits)
        self._kept.clear()
        for row, token in zip(rows.tolist(), token_ids.tolist(), strict=True):
            if row >= 0 and len(self._heads[row]) < _NAMED_IDS:
                self._heads[row].append(token)

    def _save(self, name: str, logits: NDArray[np.float32]) -> None:
        if self._directory is None:
            return
        self._last_ns = max(self._last_ns + 1, time.time_ns())  # two names of the same ids must differ
        seconds, rest = divmod(self._last_ns, 10**9)
        try:
            np.save(self._directory / f"{seconds}.{rest:09d}_{name}.npy", logits, allow_pickle=False)
        except OSError as error:  # a full disk is no reason to stop serving
            log.error("no more logits are saved: %s", error)  # noqa: TRY400 - a traceback would not help
            self._directory = None


def ids_text(ids: list[int]) -> str:
    """``1735.03439.013.0518``"""
    return ".0".join(map(str, ids))[:_NAME_LENGTH]
