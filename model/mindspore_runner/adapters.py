"""Several adapters of one linear layer in the arrays that csrc/adapters.cc takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.adapters import Adapter, Change

PREFIX = "adapters_"
"""Of the arrays' names, behind that of their layer."""


@dataclass(frozen=True, slots=True)
class Stacked:
    """Every adapter's changes of one layer, one behind the other; read when they are asked for."""

    changes: tuple[tuple[int, Change], ...]  # with the adapter's number, from 1, ascending

    def a(self) -> NDArray[np.float32]:
        """``[sum of ranks, inputs]``"""
        return np.concatenate([change.a() for _, change in self.changes])

    def b(self) -> NDArray[np.float32]:
        """Flat, of each change its transpose: the operator adds up rows of it."""
        return np.concatenate([change.b().T.reshape(-1) for _, change in self.changes])

    def pieces(self) -> NDArray[np.int32]:
        """``[changes, 4]``: adapter, rank, first row, rows."""
        return np.array([(number, it.rank, it.first, it.rows) for number, it in self.changes], np.int32)

    @property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        """What a compiled graph depends on."""
        return tuple((change.rank, change.inputs, change.rows) for _, change in self.changes)


def stack(adapters: Sequence[Adapter]) -> dict[str, Stacked]:
    """By the layer's name."""
    layers = dict.fromkeys(name for adapter in adapters for name in adapter.changes)
    return {name: Stacked(tuple(_changes(adapters, name))) for name in layers}


def _changes(adapters: Sequence[Adapter], layer: str) -> Iterator[tuple[int, Change]]:
    for number, adapter in enumerate(adapters, start=1):
        yield from ((number, change) for change in adapter.changes.get(layer, ()))
