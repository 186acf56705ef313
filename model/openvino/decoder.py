"""The graph of a `Spec` for one mixed step of paged attention, over canonical weights.

There is one graph for all shapes. What is on in a spec is decided when it is made.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from openvino import Model, Node, Type
from openvino import opset16 as op

from model.families import Spec
from model.families.rope import rotary_table
from model.openvino.paged_attention import Heads, Paging, attend, cache_parameter, integers, scalar
from model.openvino.stacking import INTERLEAVED
from model.openvino.weights import Value, Weights

INPUTS = ("input_ids", "positions", "valid_length", "q_seq_lens", "sample_index", "block_tables")
"""Arrays of `StepInputs` that the graph reads, in the order of its inputs; the caches follow, two a layer."""


def build_decoder(spec: Spec, max_length: int, weights: Weights) -> Model:
    """Token ids ``[T]`` and where they belong, to logits ``[S, vocab]``."""
    return _Decoder(spec, max_length, weights).model


class _Decoder:
    def __init__(self, spec: Spec, max_length: int, weights: Weights) -> None:
        self._spec, self._weights, self._caches = spec, weights, list[Node]()
        arrays = {name: _parameter(name, 2 if name == "block_tables" else 1) for name in INPUTS}
        self._paging = Paging.of_step(arrays["valid_length"], arrays["q_seq_lens"], arrays["block_tables"])
        embed, head = weights.matrix("embed"), weights.matrix("head")
        assert embed is not None
        x: Value = embed.rows(arrays["input_ids"])
        if spec.embedding_scale != 1:
            x = op.multiply(x, scalar(float(spec.embedding_scale)))
        self._turns = [_turns(spec, number, max_length, arrays["positions"]) for number in range(len(spec.ropes))]
        for layer in range(spec.num_layers):
            x = self._layer(layer, x)
        x = self._norm(op.gather(x, arrays["sample_index"], scalar(0)), "norm")
        logits: Value = (head or embed).product(x)
        if spec.logits_softcap:
            logits = _softcap(logits, spec.logits_softcap)
        self.model = Model([op.result(logits)], [*arrays.values(), *self._caches], spec.family)

    def _layer(self, layer: int, x: Value) -> Value:
        prefix = f"layers.{layer}."
        y = self._attention(layer, self._norm(x, f"{prefix}attention_norm"))
        x = op.add(x, self._norm(y, f"{prefix}attention_post_norm"))
        y = self._mlp(prefix, self._norm(x, f"{prefix}mlp_norm"))
        return op.add(x, self._norm(y, f"{prefix}mlp_post_norm"))

    def _attention(self, layer: int, x: Value) -> Value:
        spec, prefix = self._spec, f"layers.{layer}."
        heads = Heads(spec.num_kv_heads, spec.head_dim, spec.window(layer))
        caches = [cache_parameter(f"{name}_cache.{layer}", heads) for name in ("key", "value")]
        self._caches += caches
        widths = integers([spec.query_width, spec.kv_width, spec.kv_width])
        q, k, v = op.variadic_split(self._linear(x, f"{prefix}qkv"), scalar(1), widths).outputs()
        q = self._rotate(layer, q, spec.num_heads, f"{prefix}q_norm")
        k = self._rotate(layer, k, spec.num_kv_heads, f"{prefix}k_norm")
        return self._linear(attend(heads, self._paging, q, k, v, *caches), f"{prefix}o")

    def _rotate(self, layer: int, x: Value, heads: int, norm: str) -> Value:
        """Turns pairs (i, i + D / 2) of each head: as ``[T, heads, 1, D]``, which the plugin fuses."""
        spec, half = self._spec, self._spec.head_dim // 2
        if spec.qk_norm == "all":
            x = self._norm(x, norm)
        x = op.reshape(x, integers([-1, heads, 1, spec.head_dim]), False)
        if spec.qk_norm == "head":
            x = self._norm(x, norm)
        cos, sin = self._turns[spec.rope(layer)]
        first, second = op.variadic_split(x, op.constant(np.int64(3)), op.constant(np.array([half, half]))).outputs()
        turned = op.concat([op.multiply(second, scalar(-1.0)), first], -1)
        x = op.add(op.multiply(x, cos), op.multiply(turned, sin))
        return op.reshape(x, integers([-1, heads * spec.head_dim]), False)

    def _mlp(self, prefix: str, x: Value) -> Value:
        wide, activation = self._spec.intermediate_size, self._spec.activation
        if (gates := self._weights.matrix(f"{prefix}{INTERLEAVED}")) is not None:
            return self._linear(gates.gated_product(x, wide, activation), f"{prefix}down")
        both = self._linear(x, f"{prefix}gate_up")
        gate, up = op.variadic_split(both, scalar(1), integers([wide, wide])).outputs()
        active = op.swish(gate) if activation == "silu" else op.gelu(gate, "tanh")
        return self._linear(op.multiply(active, up), f"{prefix}down")

    def _linear(self, x: Value, name: str) -> Value:
        matrix = self._weights.matrix(name)
        assert matrix is not None
        y, bias = matrix.product(x), self._weights.vector(f"{name}.bias")
        return y if bias is None else op.add(y, bias)

    def _norm(self, x: Value, name: str) -> Value:
        """RMSNorm in the form that the plugin fuses."""
        weight = self._weights.vector(f"{name}.weight")
        if weight is None:
            return x
        mean = op.reduce_mean(op.power(x, scalar(2.0)), scalar(-1), True)
        root = op.sqrt(op.add(mean, scalar(float(self._spec.norm_eps))))
        return op.multiply(weight, op.multiply(x, op.power(root, scalar(-1.0))))


def _parameter(name: str, rank: int) -> Node:
    node = op.parameter([-1] * rank, Type.i32)
    node.set_friendly_name(name)
    node.output(0).set_names({name})
    return node


def _turns(spec: Spec, number: int, max_length: int, positions: Node) -> tuple[Node, Node]:
    """Cosines and sines of a step's tokens, ``[T, 1, 1, D]``."""
    tables = rotary_table(spec.ropes[number], spec.rotary_dim, spec.head_dim, max_length)
    shape = integers([-1, 1, 1, spec.head_dim])

    def at_positions(table: NDArray[np.float32]) -> Node:
        half = op.gather(op.constant(table), positions, scalar(0))
        return op.reshape(op.concat([half, half], -1), shape, False)

    cos, sin = (at_positions(table) for table in tables)
    return cos, sin


def _softcap(x: Value, cap: float) -> Node:
    return op.multiply(op.tanh(op.multiply(x, scalar(1 / cap))), scalar(float(cap)))
