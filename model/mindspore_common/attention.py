"""The C++ operator (csrc/paged_attention.cc) as a cell, and the KV cache that it writes to."""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from model.checkpoint.arrays import aligned_zeros
from model.mindspore_common.native import LIBRARY, OPERATOR
from model.mindspore_common.parameters import parameter_over
from model.mindspore_common.settings import KEY_GROUP


class KvCache(nn.Cell):
    """Keys and values of one layer, as csrc/step.h lays them out."""

    def __init__(self, kv_heads: int, head_dim: int, block_size: int, num_blocks: int) -> None:
        super().__init__()
        padded = -(-head_dim // KEY_GROUP) * KEY_GROUP
        self.keys = _cache("key_cache", (num_blocks, kv_heads, block_size // KEY_GROUP, head_dim, KEY_GROUP))
        self.values = _cache("value_cache", (num_blocks, kv_heads, block_size, padded))


class PagedOperator(nn.Cell):
    """Rotary embedding, KV-cache write and paged attention. ``window``: keys that a token sees at most, 0: all;
    ``softcap``: of scores, 0: none."""

    def __init__(self, window: int = 0, softcap: float = 0.0) -> None:
        super().__init__()
        self.traits = Tensor(np.array([window, softcap], np.float32))
        self.operator = ops.Custom(
            f"{LIBRARY}:{OPERATOR}",
            out_shape=lambda query, *_: query,
            out_dtype=lambda query, *_: query,
            func_type="aot",
        )

    def construct(self, query, key, value, cos, sin, keys, values, tables, slots, valid, fresh):
        """query ``[T, heads * D]``; key, value ``[T, kv_heads * D]``; cos, sin ``[T, D]``; to ``[T, heads * D]``."""
        return self.operator(query, key, value, cos, sin, keys, values, tables, slots, valid, fresh, self.traits)


def _cache(name: str, shape: tuple[int, ...]) -> Parameter:
    return parameter_over(aligned_zeros(shape), name)
