"""The checkpoint as a stateful graph, the form in which models are exported for openvino_genai:

python -m scripts.bench.peers.to_openvino CHECKPOINT_FOLDER f32|bf16|int8 FOLDER

Weights are converted by RingServe's own engine, so that both compute with the same values. Attention is
`scaled_dot_product_attention` over a state for each layer's keys and values, which openvino_genai replaces by paged
attention when it loads the graph.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np

from model.adapters import model_weights
from model.families import Spec, read_spec_file
from model.families.rope import rotary_table
from model.openvino.import_openvino import import_openvino

import_openvino()
import openvino as ov  # noqa: E402
from openvino import Node, Type  # noqa: E402
from openvino import opset16 as op  # noqa: E402
from openvino.op.util import Variable, VariableInfo  # noqa: E402

from model.openvino.loading import load_weights  # noqa: E402
from model.openvino.paged_attention import integers, scalar  # noqa: E402
from model.openvino.settings import OpenVinoSettings, WeightDtype  # noqa: E402
from model.openvino.weights import Value, Weights  # noqa: E402


def convert(checkpoint: Path, dtype: WeightDtype, folder: Path) -> None:
    """The model, tables in place of a tokenizer, and the settings that openvino_genai reads."""
    spec = read_spec_file(checkpoint)
    settings = OpenVinoSettings(
        config_path=checkpoint, checkpoint_path=checkpoint, weight_dtype=dtype, own_products=False
    )
    file = load_weights(model_weights(spec, checkpoint), settings, None)
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    model = Graph(spec, Weights(file.arrays, narrow=False), config["max_position_embeddings"]).model
    folder.mkdir(parents=True, exist_ok=True)
    ov.save_model(model, folder / "openvino_model.xml", compress_to_fp16=False)
    ov.save_model(_no_tokenizer(), folder / "openvino_detokenizer.xml")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    ids = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    (folder / "generation_config.json").write_text(json.dumps(ids), encoding="utf-8")


class Graph:
    """Ids ``[B, S]`` to logits ``[B, S, vocab]``, a decoder with norms before attention and MLP and nothing more."""

    def __init__(self, spec: Spec, weights: Weights, max_length: int) -> None:
        self._spec, self._weights = spec, weights
        self._sinks: list[Node] = []
        ids, mask, positions = (_parameter(name, 2) for name in ("input_ids", "attention_mask", "position_ids"))
        self._beams = _parameter("beam_idx", 1, Type.i32)
        self._batch = op.gather(op.shape_of(ids), integers([0]), scalar(0))
        self._turns = [self._at_positions(table, positions) for table in self._tables(max_length)]
        self._mask = _causal(mask, positions)
        embed = weights.matrix("embed")
        assert embed is not None
        x: Value = embed.rows(op.convert(ids, "i32"))
        for layer in range(spec.num_layers):
            x = self._layer(layer, x)
        logits = self._linear(self._norm(x, "norm"), "head")
        logits.output(0).set_names({"logits"})
        inputs = [ids, mask, positions, self._beams]
        self.model = ov.Model([op.result(logits)], cast("Any", self._sinks), cast("Any", inputs), spec.family)

    def _tables(self, max_length: int) -> tuple[Any, Any]:
        return rotary_table(self._spec.ropes[0], self._spec.rotary_dim, self._spec.head_dim, max_length)

    def _at_positions(self, table: Any, positions: Node) -> Node:
        """``[B, 1, S, D]``."""
        half = op.gather(op.constant(table), positions, scalar(0))
        return op.unsqueeze(op.concat([half, half], -1), scalar(1))

    def _layer(self, layer: int, x: Value) -> Node:
        prefix = f"layers.{layer}."
        x = op.add(x, self._attention(layer, self._norm(x, f"{prefix}attention_norm")))
        both = self._linear(self._norm(x, f"{prefix}mlp_norm"), f"{prefix}gate_up")
        wide = integers([self._spec.intermediate_size] * 2)
        gate, up = op.variadic_split(both, scalar(-1), wide).outputs()
        return op.add(x, self._linear(op.multiply(op.swish(gate), up), f"{prefix}down"))

    def _attention(self, layer: int, x: Value) -> Node:
        spec = self._spec
        widths = integers([spec.query_width, spec.kv_width, spec.kv_width])
        q, k, v = op.variadic_split(self._linear(x, f"layers.{layer}.qkv"), scalar(-1), widths).outputs()
        q = self._rotated(self._by_head(q, spec.num_heads))
        k = self._kept(f"key.{layer}", self._rotated(self._by_head(k, spec.num_kv_heads)))
        v = self._kept(f"value.{layer}", self._by_head(v, spec.num_kv_heads))
        out = op.scaled_dot_product_attention(q, self._repeated(k), self._repeated(v), self._mask)
        out = op.reshape(op.transpose(out, integers([0, 2, 1, 3])), integers([0, 0, spec.query_width]), True)
        return self._linear(out, f"layers.{layer}.o")

    def _by_head(self, x: Value, heads: int) -> Node:
        """``[B, S, H * D]`` to ``[B, H, S, D]``."""
        split = op.reshape(x, integers([0, 0, heads, self._spec.head_dim]), True)
        return op.transpose(split, integers([0, 2, 1, 3]))

    def _rotated(self, x: Node) -> Node:
        half = integers([self._spec.head_dim // 2] * 2)
        first, second = op.variadic_split(x, scalar(-1), half).outputs()
        turned = op.concat([op.multiply(second, scalar(-1.0)), first], -1)
        cos, sin = self._turns
        return op.add(op.multiply(x, cos), op.multiply(turned, sin))

    def _kept(self, name: str, fresh: Node) -> Node:
        """Appended to what the state holds, in the order of beams."""
        spec, info = self._spec, VariableInfo()
        info.data_shape = ov.PartialShape([-1, spec.num_kv_heads, -1, spec.head_dim])
        info.data_type, info.variable_id = Type.f32, name
        variable = Variable(info)
        shape = op.concat([self._batch, *(op.constant([n]) for n in (spec.num_kv_heads, 0, spec.head_dim))], 0)
        state = op.read_value(op.broadcast(scalar(0.0), shape), variable)
        both = op.concat([op.gather(state, self._beams, scalar(0)), fresh], 2)
        self._sinks.append(op.assign(both, variable))
        return both

    def _repeated(self, x: Node) -> Node:
        """Each head of keys or values for all heads of queries that share it."""
        spec = self._spec
        if (share := spec.num_heads // spec.num_kv_heads) == 1:
            return x
        wide = op.broadcast(op.unsqueeze(x, scalar(2)), op.constant([1, 1, share, 1, 1]), None, "BIDIRECTIONAL")
        return op.reshape(wide, op.constant([0, spec.num_heads, -1, spec.head_dim]), True)

    def _linear(self, x: Value, name: str) -> Node:
        matrix = self._weights.matrix(name)
        assert matrix is not None
        return matrix.product(x)

    def _norm(self, x: Value, name: str) -> Node:
        mean = op.reduce_mean(op.power(x, scalar(2.0)), scalar(-1), True)
        root = op.sqrt(op.add(mean, scalar(float(self._spec.norm_eps))))
        weight = self._weights.vector(f"{name}.weight")
        assert weight is not None
        return op.multiply(weight, op.multiply(x, op.power(root, scalar(-1.0))))


def _parameter(name: str, rank: int, kind: Type = Type.i64) -> Node:
    node = op.parameter([-1] * rank, kind)
    node.set_friendly_name(name)
    node.output(0).set_names({name})
    return node


def _causal(mask: Node, positions: Node) -> Node:
    """``[B, 1, S, all]``: 0 where a key is not behind the query, else far below."""
    length = op.gather(op.shape_of(mask), scalar(1), scalar(0))
    keys = op.range(op.constant(np.int64(0)), length, op.constant(np.int64(1)), "i64")
    visible = op.less_equal(keys, op.unsqueeze(op.unsqueeze(positions, scalar(1)), scalar(-1)))
    return op.select(visible, scalar(0.0), scalar(-1e9))


def _no_tokenizer() -> ov.Model:
    """Prompts are ids, and so are answers; but a graph must be there."""
    ids = _parameter("input_ids", 2)
    text = op.constant(ov.Tensor(np.array(["x"])))
    text.output(0).set_names({"string_output"})
    return ov.Model([op.result(text)], [ids], "detokenizer")


if __name__ == "__main__":
    convert(Path(sys.argv[1]), cast("WeightDtype", sys.argv[2]), Path(sys.argv[3]))
