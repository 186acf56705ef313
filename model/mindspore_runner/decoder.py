"""The network of a `Spec` for one mixed step of paged attention, over canonical weights.

What is on in a spec is decided when the network is made: a graph holds nothing of features that are off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from numpy.typing import NDArray

from model.adapters import Adapter
from model.checkpoint.arrays import aligned
from model.checkpoint.stored_tensor import Bits, Float
from model.checkpoint.weight import Weight, read_weights
from model.families import Spec
from model.families.rope import rotary_table
from model.families.shard import Shard
from model.mindspore_common.attention import KvCache, PagedOperator
from model.mindspore_common.execution import step_tensors
from model.mindspore_common.parameters import parameter_over
from model.mindspore_common.reduce import Reduce, all_reduce
from model.mindspore_common.settings import GraphSettings
from model.mindspore_runner.adapters import PREFIX, stack
from model.mindspore_runner.parts import Embedding, Experts, Linear, Mlp, Norm, Take, product_with
from model.runner import Progress, StepInputs


class Layer(nn.Cell):
    """Attention and MLP, each with its norms and added to what came in."""

    def __init__(self, spec: Spec, number: int, take: Take, settings: GraphSettings, reduce: Reduce) -> None:
        super().__init__()
        self.before_attention = Norm(take, "attention_norm", spec.norm_eps)
        self.q, self.k, self.v = (Linear(take, name) for name in "qkv")
        self.q_norm, self.k_norm = (Norm(take, f"{name}_norm", spec.norm_eps) for name in "qk")
        self.o = Linear(take, "o", reduce)
        self.after_attention = Norm(take, "attention_post_norm", spec.norm_eps)
        self.before_mlp = Norm(take, "mlp_norm", spec.norm_eps)
        if spec.experts is not None and spec.has_experts(number):
            self.mlp = Experts(take, spec.experts, spec.activation, reduce)
        else:
            self.mlp = Mlp(take, spec.intermediate_size, spec.activation, reduce=reduce)
        self.after_mlp = Norm(take, "mlp_post_norm", spec.norm_eps)
        self.cache = KvCache(spec.num_kv_heads, spec.head_dim, settings.block_size, settings.num_blocks)
        self.attend = PagedOperator(spec.window(number), spec.score_softcap)

    def construct(self, x, cos, sin, tables, slots, valid, fresh, adapter):
        y = self.before_attention(x)
        y = self.attend(
            self.q_norm(self.q(y, adapter, fresh)),
            self.k_norm(self.k(y, adapter, fresh)),
            self.v(y, adapter, fresh),
            cos,
            sin,
            self.cache.keys,
            self.cache.values,
            tables,
            slots,
            valid,
            fresh,
        )
        x = x + self.after_attention(self.o(y, adapter, fresh))
        return x + self.after_mlp(self.mlp(self.before_mlp(x), slots, adapter, fresh))


class RotaryTables(nn.Cell):
    """Cosines and sines by position. Parameters: constants would be part of every graph."""

    def __init__(self, spec: Spec, max_length: int) -> None:
        super().__init__()
        tables = [rotary_table(rope, spec.rotary_dim, spec.head_dim, max_length) for rope in spec.ropes]
        self.cos = _parameters("cos", [cos for cos, _ in tables])
        self.sin = _parameters("sin", [sin for _, sin in tables])
        self.count = len(tables)

    def construct(self, positions):
        """``[T]`` to both, ``[T, head_dim]`` each, for every embedding."""
        cos = [self.both_halves(self.cos[number], positions) for number in range(self.count)]
        sin = [self.both_halves(self.sin[number], positions) for number in range(self.count)]
        return cos, sin

    def both_halves(self, table, positions):
        half = ops.gather(table, positions, 0)
        return ops.concat((half, half), -1)


class Decoder(nn.Cell):
    """Token ids ``[T]`` and where they belong, to logits ``[S, vocab]``, or this rank's part of them. ``adapter`` is
    given where there are any."""

    def __init__(self, shard: Shard, settings: GraphSettings, max_length: int, weights: Weights) -> None:
        super().__init__()
        spec, reduce = shard.spec, all_reduce(settings)
        self.embedding_scale, self.softcap = spec.embedding_scale, spec.logits_softcap
        self.embed = Embedding(weights.take, "embed")
        self.rotary = RotaryTables(spec, max_length)
        self.layer_ropes = tuple(spec.rope(number) for number in range(spec.num_layers))
        self.layers = nn.CellList(
            [Layer(spec, number, weights.of_layer(number), settings, reduce) for number in range(spec.num_layers)]
        )
        self.norm = Norm(weights.take, "norm", spec.norm_eps)
        self.head: Any = None if spec.tied_embeddings else Linear(weights.take, "head")
        first, end = shard.vocabulary
        self.own_rows: Any = None  # of a head that is the embedding
        if spec.tied_embeddings and end - first < spec.vocab_size:
            table: Any = self.embed.weight
            self.own_rows = _parameter("own_rows", table.asnumpy()[first:end])  # in the same memory
        self.product = product_with(self.embed.weight)

    def construct(self, ids, positions, slots, valid, fresh, sample_index, tables, adapter=None):
        x = self.embed(ids)
        if self.embedding_scale != 1:
            x = x * self.embedding_scale
        cos, sin = self.rotary(positions)
        for number, layer in enumerate(self.layers):
            rope = self.layer_ropes[number]
            x = layer(x, cos[rope], sin[rope], tables, slots, valid, fresh, adapter)
        x = self.norm(ops.gather(x, sample_index, 0))
        logits = self.of_head(x)
        if self.softcap != 0:  # cap * tanh(x / cap), more exact than MindSpore's tanh on CPU
            logits = (2 * ops.sigmoid(logits * (2 / self.softcap)) - 1) * self.softcap
        return logits

    def of_head(self, x):
        if self.head is not None:
            return self.head(x)
        return self.product(x, self.embed.weight if self.own_rows is None else self.own_rows)


class Weights:
    """Hands out each weight as a parameter, reading it only then: they are asked for in the order of the spec. And
    what adapters add to it, as ``….adapters_a`` and so on."""

    def __init__(self, weights: Sequence[Weight], adapters: Sequence[Adapter], progress: Progress | None) -> None:
        self._read: Iterator[tuple[Weight, Float | Bits]] = read_weights(weights, np.float32, keep_bfloat16=True)
        self._names = {weight.name for weight in weights}
        self._stacked = stack(adapters)
        self._progress, self._total, self._done = progress, len(weights), 0

    def take(self, name: str) -> Parameter | None:
        """None where there is none of this name."""
        layer, _, part = name.rpartition(".")  # cells put their own names before it
        if part.startswith(PREFIX):
            stacked = self._stacked.get(layer)
            return None if stacked is None else _parameter(part, getattr(stacked, part.removeprefix(PREFIX))())
        if name not in self._names:
            return None
        weight, values = next(self._read)
        assert weight.name == name, f"{weight.name} comes before {name}"
        self._done += 1
        if self._progress is not None:
            self._progress("loading weights", self._done, self._total)
        return _parameter(part, values)

    def of_layer(self, number: int) -> Take:
        return lambda name: self.take(f"layers.{number}.{name}")


def build_decoder(shard: Shard, settings: GraphSettings, max_length: int, weights: Weights) -> Decoder:
    """The network with its weights and an empty KV cache. Raises what `read_weights` does."""
    network = Decoder(shard, settings, max_length, weights)
    network.set_train(False)
    return network


def arrange(inputs: StepInputs, adapters: bool) -> list[Tensor]:
    """The arguments of `Decoder.construct`. ``adapters``: whether there are any."""
    return [*step_tensors(inputs), *([Tensor.from_numpy(inputs.adapter)] if adapters else ())]


def _parameter(name: str, values: NDArray[Any]) -> Parameter:
    """In the array's own memory."""
    return parameter_over(aligned(values), name)


def _parameters(name: str, arrays: Sequence[NDArray[Any]]) -> ParameterTuple:
    return ParameterTuple([_parameter(f"{name}.{number}", array) for number, array in enumerate(arrays)])
