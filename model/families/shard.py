"""A decoder divided among ranks: which part of each canonical weight a rank has, and the `Spec` of that part.

Query heads, key/value heads and the MLP's width are divided: rows of the matrices that make them, columns of those
behind them, whose results are then added up over the ranks. The head is divided by rows, as evenly as that goes. All
else every rank has whole: norms, routers, the embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.checkpoint.arrays import aligned_copy
from model.checkpoint.stored_tensor import Bits, Dtype, Float
from model.checkpoint.weight import Weight
from model.errors import ConfigurationError
from model.families.spec import Spec

Array = NDArray[Any]
Cut = Callable[[Array], Array]

MOST_RANKS = 16
"""As many cursors as a ring has."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One rank's part of a decoder. Raises ConfigurationError, with what would work, for what can't be divided."""

    whole: Spec
    rank: int
    ranks: int

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.ranks:
            raise ConfigurationError(f"rank {self.rank} of {self.ranks}: ranks count from 0")
        if self.ranks == 1:
            return
        if self.whole.qk_norm == "all":
            raise ConfigurationError(
                f"{self.whole.family} normalizes the queries of all heads together, so they can't be divided among "
                f"{self.ranks} ranks; use 1"
            )
        if not _divides(self.whole, self.ranks):
            raise ConfigurationError(
                f"{_sizes(self.whole)} can't be divided among {self.ranks} ranks; {_advice(self)}"
            )

    @property
    def spec(self) -> Spec:
        """Of this rank's part. Its vocabulary is the whole one: see `vocabulary`."""
        whole, n = self.whole, self.ranks
        experts = whole.experts and replace(
            whole.experts,
            intermediate_size=whole.experts.intermediate_size // n,
            shared_size=whole.experts.shared_size // n,
        )
        return replace(
            whole,
            num_heads=whole.num_heads // n,
            num_kv_heads=max(1, whole.num_kv_heads // n),
            intermediate_size=max(1, whole.intermediate_size // n),
            experts=experts,
        )

    @property
    def vocabulary(self) -> tuple[int, int]:
        """First and end of the ids whose logits this rank computes; the last rank may have fewer."""
        size, part = self.whole.vocab_size, self.widest
        return min(self.rank * part, size), min((self.rank + 1) * part, size)

    @property
    def widest(self) -> int:
        """Most ids of any rank."""
        return -(-self.whole.vocab_size // self.ranks)

    def weights(self, weights: Sequence[Weight]) -> tuple[Weight, ...]:
        """This rank's part of the whole decoder's weights. Each is read whole, and cut then: that takes the memory of
        one weight."""
        return tuple(weights) if self.ranks == 1 else tuple(map(self._part, weights))

    def _part(self, weight: Weight) -> Weight:
        cut = self._cut_of(weight.name.split(".", 2)[-1] if weight.name.startswith("layers.") else weight.name)
        if cut is None:
            return weight
        shape = cut(np.broadcast_to(np.zeros(1, np.int8), weight.shape)).shape  # takes no memory

        def read(dtype: Dtype) -> Float:
            part: Float = aligned_copy(cut(weight.read(dtype)))
            return part

        def read_bits() -> Bits:
            assert weight.read_bits is not None
            part: Bits = aligned_copy(cut(weight.read_bits()))
            return part

        return Weight(weight.name, shape, read, weight.read_bits and read_bits)

    def _cut_of(self, name: str) -> Cut | None:
        """None: every rank has it whole. A bias of what is added up is added once, behind that."""
        of, _, what = name.rpartition(".")
        if of in {"q", "k", "v"}:
            return self._rows(self.whole.num_heads if of == "q" else self.whole.num_kv_heads)
        if of.endswith("gate_up"):
            return lambda whole: self._halves(whole, 1 if of == "experts_gate_up" else 0)
        if what == "weight" and (of == "o" or of.endswith("down")):
            return self._columns
        if of == "head":
            first, end = self.vocabulary
            return lambda whole: whole[first:end]
        return None

    def _rows(self, heads: int) -> Cut:
        """Of this rank's heads; where there are fewer than ranks, several ranks have the same one."""
        first, count = self.rank * heads // self.ranks, max(1, heads // self.ranks)
        size = self.whole.head_dim
        return lambda whole: whole[first * size : (first + count) * size]

    def _halves(self, whole: Array, axis: int) -> Array:
        """Its part of the gate's rows, and of those behind them."""
        both = whole.reshape(*whole.shape[:axis], 2, self.ranks, -1, *whole.shape[axis + 1 :])
        own: Array = both.take(self.rank, axis + 1).reshape(*whole.shape[:axis], -1, *whole.shape[axis + 1 :])
        return own

    def _columns(self, whole: Array) -> Array:
        size = whole.shape[-1] // self.ranks
        return whole[..., self.rank * size : (self.rank + 1) * size]


def _divides(spec: Spec, ranks: int) -> bool:
    kv = spec.num_kv_heads
    return all(size % ranks == 0 for size in _widths(spec).values()) and (kv % ranks == 0 or ranks % kv == 0)


def _widths(spec: Spec) -> dict[str, int]:
    """What must be a multiple of the number of ranks."""
    experts, widths = spec.experts, {"num_heads": spec.num_heads}
    if experts is None or experts.dense_layers:
        widths["intermediate_size"] = spec.intermediate_size
    if experts is not None:
        widths["the experts' intermediate_size"] = experts.intermediate_size
        if experts.shared_size:
            widths["the shared expert's intermediate_size"] = experts.shared_size
    return widths


def _sizes(spec: Spec) -> str:
    sizes = {**_widths(spec), "num_kv_heads": spec.num_kv_heads}
    *most, last = (f"{name} {size}" for name, size in sizes.items())
    return f"{', '.join(most)} and {last}"


def _advice(shard: Shard) -> str:
    *others, last = (str(ranks) for ranks in range(1, MOST_RANKS + 1) if _divides(shard.whole, ranks))
    return f"use {', '.join(others)} or {last}" if others else f"use {last}"
