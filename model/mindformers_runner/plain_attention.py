"""The same seam from MindSpore's own operators: what the C++ operator is measured against.

It computes any mixed step, but gathers every row's whole block table, whatever its context.
"""

from __future__ import annotations

import math
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

_HIDDEN = -1e9  # score of a key that a token must not see


class PlainPagedAttention(nn.Cell):
    """Rotary embedding, scatter into the KV cache, gather, softmax."""

    def __init__(
        self,
        n_head: int,
        head_dim: int,
        n_kv_head: int,
        block_size: int = 16,
        num_blocks: int = 1024,
        **_: Any,
    ) -> None:
        super().__init__()
        self.is_first_iteration = True
        self.paged_attention_mgr = nn.Cell()
        self.heads, self.kv_heads, self.head_dim = n_head, n_kv_head, head_dim
        self.group = n_head // n_kv_head
        self.block_size = block_size
        self.scale = 1 / math.sqrt(head_dim)
        # one slot more than there are: where tokens with slot -1 are written
        shape = (num_blocks * block_size + 1, n_kv_head * head_dim)
        self.spare = num_blocks * block_size
        self.key_cache = _zeros("key_cache", shape)
        self.value_cache = _zeros("value_cache", shape)
        self.offsets = Tensor(np.arange(block_size, dtype=np.int32))
        self.scatter = ops.ScatterUpdate()
        self.cumulate = ops.CumSum()
        self.scores = ops.BatchMatMul(transpose_b=True)
        self.mix = ops.BatchMatMul()

    def construct(
        self,
        query,
        key,
        value,
        batch_valid_length,
        block_tables,
        slot_mapping,
        freqs_cis=None,
        attn_mask=None,
        alibi_mask=None,
        prefix_keys_values=None,
        q_seq_lens=None,
    ):
        """As `PagedAttention.construct`."""
        cos, sin, _ = freqs_cis
        tokens = query.shape[1]
        slots = ops.select(slot_mapping < 0, ops.full_like(slot_mapping, self.spare), slot_mapping)
        query = self.rotate(query.reshape(tokens, self.heads, self.head_dim), cos, sin)
        key = self.rotate(key.reshape(tokens, self.kv_heads, self.head_dim), cos, sin)
        keys = self.scatter(self.key_cache, slots, key.reshape(tokens, -1))
        values = self.scatter(self.value_cache, slots, value.reshape(tokens, -1))

        row, visible = self.places(tokens, batch_valid_length, q_seq_lens)
        tables = ops.maximum(ops.minimum(block_tables, self.spare // self.block_size - 1), 0)
        context = (tables.expand_dims(-1) * self.block_size + self.offsets).reshape(tables.shape[0], -1)
        context = ops.gather(context, row, 0)  # [T, keys]
        keys = self.per_head(ops.gather(keys, context, 0))
        values = self.per_head(ops.gather(values, context, 0))

        query = query.reshape(tokens * self.kv_heads, self.group, self.head_dim)
        score = self.scores(query, keys) * self.scale
        score = score.reshape(tokens, self.heads, -1)
        positions = ops.arange(context.shape[1]).astype(ms.int32)
        hidden = (positions >= visible.expand_dims(-1)).expand_dims(1)
        score = ops.softmax(score + hidden.astype(ms.float32) * _HIDDEN, -1)
        out = self.mix(score.reshape(tokens * self.kv_heads, self.group, -1), values)
        return out.reshape(1, tokens, self.heads * self.head_dim)

    def rotate(self, x, cos, sin):
        """``[T, heads, D]`` with ``[T, D]`` tables."""
        half = self.head_dim // 2
        turned = ops.concat((-x[..., half:], x[..., :half]), -1)
        return x * cos.expand_dims(1) + turned * sin.expand_dims(1)

    def places(self, tokens, valid_length, q_seq_lens):
        """Each token's row, and how many keys it sees; padding tokens count to the last row."""
        ends = self.cumulate(q_seq_lens, 0)
        index = ops.arange(tokens).astype(ms.int32)
        row = (index.expand_dims(1) >= ends.expand_dims(0)).astype(ms.int32).sum(1)
        row = ops.minimum(row, ends.shape[0] - 1).astype(ms.int32)
        left = ops.gather(ends, row, 0) - index
        return row, ops.gather(valid_length, row, 0) - left + 1

    def per_head(self, x):
        """``[T, keys, kv_heads * D]`` to ``[T * kv_heads, keys, D]``."""
        x = x.reshape(x.shape[0], x.shape[1], self.kv_heads, self.head_dim).transpose(0, 2, 1, 3)
        return x.reshape(x.shape[0] * self.kv_heads, x.shape[2], self.head_dim)


def _zeros(name: str, shape: tuple[int, ...]) -> Parameter:
    return Parameter(Tensor(np.zeros(shape, np.float32)), name=name, requires_grad=False)
