"""OpenVINO's paged attention, as the Python package has it: privately, without documentation.

Of its 28 inputs a decoder needs 13; the others switch features off by being empty. ``tests/model/openvino`` fails
when another release changes them: until it passes, pyproject.toml excludes that release.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from openvino import Node, Output, Type
from openvino import opset16 as op
from openvino.op import _PagedAttentionExtension as PagedAttention

from model.openvino.requirements import BLOCK_SIZE

INPUTS = (
    "query", "key", "value",  # [T, heads * D], [T, kv_heads * D] twice
    "key_cache", "value_cache",  # parameters, whose type and shape the plugin decides
    "past_lens", "subsequence_begins", "block_indices", "block_indices_begins",
    "scale", "sliding_window", "alibi_slopes", "max_context_len",
    "score_aggregation_window",
    "rotated_block_indices", "rotation_deltas", "rotation_trig_lut",
    "xattention_threshold", "xattention_block_size", "xattention_stride",
    "sinks",
    "adaptive_rkv_start_size", "adaptive_rkv_evictable_sizes", "adaptive_rkv_indices", "adaptive_rkv_begins",
    "token_type_ids", "qq_bias", "qq_bias_begins",
)  # fmt: skip
_FLOATS = {"alibi_slopes", "rotation_trig_lut", "xattention_threshold", "sinks"}
_ZEROS = {"xattention_block_size", "xattention_stride", "adaptive_rkv_start_size"}


def scalar(value: float) -> Node:
    """An int32 or, for a float, a float32 constant."""
    return op.constant(np.float32(value) if isinstance(value, float) else np.int32(value))


def integers(values: Sequence[int]) -> Node:
    return op.constant(np.array(values, np.int32))


@dataclass(frozen=True, slots=True)
class Paging:
    """Where a step's tokens and their contexts lie; computed from its arrays, once for all layers."""

    past_lens: Node  # [B]
    subsequence_begins: Node  # [B + 1]
    block_indices: Node  # [B * W]
    block_indices_begins: Node  # [B + 1]
    max_context_len: Node  # []

    @classmethod
    def of_step(cls, valid_length: Node, q_seq_lens: Node, block_tables: Node) -> Paging:
        """Block tables go in as they are: each row has ``W`` blocks, and those past its context are not looked at. A
        row without new tokens is padding; with a context it would read what that says."""
        valid_length = op.select(op.greater(q_seq_lens, scalar(0)), valid_length, scalar(0))
        shape = op.shape_of(block_tables, "i32")
        rows, width = (op.gather(shape, scalar(axis), scalar(0)) for axis in (0, 1))
        counted = op.range(scalar(0), op.add(rows, scalar(1)), scalar(1), "i32")
        return cls(
            past_lens=op.subtract(valid_length, q_seq_lens),
            subsequence_begins=op.concat([integers([0]), op.cumsum(q_seq_lens, scalar(0))], 0),
            block_indices=op.reshape(block_tables, integers([-1]), False),
            block_indices_begins=op.multiply(counted, width),
            max_context_len=op.reduce_max(valid_length, scalar(0), False),
        )


@dataclass(frozen=True, slots=True)
class Heads:
    """Sizes and traits of one layer's attention."""

    kv_heads: int
    head_dim: int
    window: int = 0  # keys that a token sees, itself among them; 0: all


def attend(
    heads: Heads, paging: Paging, query: Node, key: Node, value: Node, key_cache: Node, value_cache: Node
) -> Output:
    """Writes keys and values to the caches; to ``[T, heads * D]``."""
    given: dict[str, Node | Output] = {
        "query": query,
        "key": key,
        "value": value,
        "key_cache": key_cache,
        "value_cache": value_cache,
        **{name: getattr(paging, name) for name in Paging.__slots__},
        "scale": scalar(heads.head_dim**-0.5),
        "sliding_window": scalar(heads.window),
    }
    inputs = [given[name] if name in given else _absent(name) for name in INPUTS]
    node = PagedAttention([it.output(0) if isinstance(it, Node) else it for it in inputs])
    facts: Any = node.get_rt_info()  # the plugin takes the caches' shape from it
    for which in "kv":
        facts[f"num_{which}_heads"], facts[f"{which}_head_size"] = heads.kv_heads, heads.head_dim
    return node.output(0)


def _absent(name: str) -> Node:
    if name in _ZEROS:
        return scalar(0)
    if name == "qq_bias":
        return op.constant(np.zeros(0, np.uint8))
    return op.constant(np.zeros(0, np.float32 if name in _FLOATS else np.int32))


def cache_parameter(name: str, heads: Heads) -> Node:
    """The plugin replaces type and shape when it compiles: by the cache's precision."""
    node = op.parameter([-1, heads.kv_heads, BLOCK_SIZE, heads.head_dim], Type.f32)
    node.set_friendly_name(name)
    node.output(0).set_names({name})
    return node
