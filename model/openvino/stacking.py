"""Queries, keys and values as one matrix: a product in place of three takes 5 to 13 % off a step of few rows.
And gates beside what they let pass, for products that end with the activation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from model.checkpoint.stored_tensor import Bits, Dtype, Float
from model.checkpoint.weight import Weight
from model.openvino.int8_products import ROWS, padded_rows

INTERLEAVED = "gate_up_interleaved"


def stack_attention(weights: Sequence[Weight]) -> Iterator[Weight]:
    """Those of a decoder, with ``layers.N.qkv`` in the place of ``q``, ``k`` and ``v``."""
    by_name = {weight.name: weight for weight in weights}
    for weight in weights:
        layer, _, rest = weight.name.rpartition(".q.")
        if layer:
            yield _stack(f"{layer}.qkv.{rest}", [by_name[f"{layer}.{which}.{rest}"] for which in "qkv"])
        elif ".k." not in weight.name and ".v." not in weight.name:
            yield weight


def interleave_gates(weights: Sequence[Weight]) -> Iterator[Weight]:
    """``gate_up`` matrices in blocks of `int8_products.ROWS` rows, half of them gates; filled up with zeros. Those
    with biases stay as they are, since these come before the activation; the others get a name of their own."""
    names = {weight.name for weight in weights}
    for weight in weights:
        layer, _, rest = weight.name.rpartition(".gate_up.")
        if rest != "weight" or f"{layer}.gate_up.bias" in names:
            yield weight
            continue
        rows = 2 * padded_rows(weight.shape[0] // 2, ROWS // 2)
        yield Weight(f"{layer}.{INTERLEAVED}.weight", (rows, *weight.shape[1:]), partial(_read_interleaved, weight))


def _read_interleaved(weight: Weight, dtype: Dtype) -> Float:
    values = weight.read(dtype)
    wide, half = len(values) // 2, ROWS // 2
    parts = np.zeros((2, padded_rows(wide, half), *values.shape[1:]), values.dtype)
    parts[:, :wide] = values.reshape(2, wide, *values.shape[1:])
    return parts.reshape(2, -1, half, *values.shape[1:]).swapaxes(0, 1).reshape(-1, *values.shape[1:])


def _stack(name: str, parts: Sequence[Weight]) -> Weight:
    """In bfloat16 only if all of them are."""
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    exact = all(part.read_bits for part in parts)
    return Weight(name, shape, partial(_read, parts), partial(_read_bits, parts) if exact else None)


def _read(parts: Sequence[Weight], dtype: Dtype) -> Float:
    return np.concatenate([part.read(dtype) for part in parts])


def _read_bits(parts: Sequence[Weight]) -> Bits:
    return np.concatenate([part.read_bits() for part in parts if part.read_bits])
