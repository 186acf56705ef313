"""The attention seam: a cell in the place of mindformers' `InferAttention`, for CPU.

mindformers' own cell calls kernels that exist on Ascend only. This one has the same constructor and the same
``construct``; it hands everything to the C++ operator (csrc/paged_attention.cc), which rotates queries and
keys, writes the KV cache and attends.
"""

from __future__ import annotations

from typing import Any

from mindspore import nn

from model.mindspore_common.attention import KvCache, PagedOperator


class PagedAttention(nn.Cell):
    """Rotary embedding, KV-cache write and paged attention in one custom operator."""

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
        self.is_first_iteration = True  # mindformers sets this flag here and on the child cell
        self.paged_attention_mgr = nn.Cell()
        self.width, self.kv_width = n_head * head_dim, n_kv_head * head_dim
        self.cache = KvCache(n_kv_head, head_dim, block_size, num_blocks)
        self.attend = PagedOperator()

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
        """query ``[1, T, heads * D]`` and key, value ``[1, T, kv_heads * D]`` to ``[1, T, heads * D]``."""
        cos, sin, _ = freqs_cis
        out = self.attend(
            query.reshape(-1, self.width),
            key.reshape(-1, self.kv_width),
            value.reshape(-1, self.kv_width),
            cos,
            sin,
            self.cache.keys,
            self.cache.values,
            block_tables,
            slot_mapping,
            batch_valid_length,
            q_seq_lens,
        )
        return out.reshape(1, -1, self.width)
