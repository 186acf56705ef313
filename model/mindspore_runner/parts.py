"""The decoder's small cells: linear layers, norms, MLPs, experts. Each takes its weights by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import mindspore as ms
from mindspore import Parameter, nn, ops

from model.families import Experts as ExpertsSpec
from model.mindspore_common.native import ADAPTED_LINEAR, ADAPTERS, EMBEDDING, EXPERTS, LIBRARY, LINEAR
from model.mindspore_common.reduce import Reduce

Take = Callable[[str], Parameter | None]
"""A weight by its name within a layer, once; None where there is none."""


def in_float32(weight: Parameter) -> bool:
    """Else it has the bits of bfloat16."""
    return bool(weight.dtype == ms.float32)


def custom(name: str, out_shape: Callable[..., Any]) -> ops.Custom:
    """An operator of the C++ library, whose output is float32."""
    return ops.Custom(f"{LIBRARY}:{name}", out_shape=out_shape, out_dtype=lambda *_: ms.float32, func_type="aot")


def product_with(weight: Parameter) -> Any:
    """``[T, K]`` times a weight ``[N, K]`` as it is stored."""
    return ops.MatMul(transpose_b=True) if in_float32(weight) else custom(LINEAR, _linear_shape)


def _linear_shape(x: Sequence[int], weight: Sequence[int]) -> list[int]:
    return [x[0], weight[0]]


def _embedding_shape(ids: Sequence[int], table: Sequence[int]) -> list[int]:
    return [ids[0], table[1]]


class Linear(nn.Cell):
    """``[T, inputs]`` to ``[T, outputs]``, and adapters of it where there are any. ``reduce``: adds up what the ranks
    have of it, if each has some of the inputs."""

    def __init__(self, take: Take, name: str, reduce: Reduce = None) -> None:
        super().__init__()
        self.reduce = reduce
        self.weight, self.bias = take(f"{name}.weight"), take(f"{name}.bias")
        self.product = product_with(self.weight)
        self.a, self.b, self.pieces = (take(f"{name}.adapters_{part}") for part in ("a", "b", "pieces"))
        self.adapted, self.in_float32 = self.a is not None, in_float32(self.weight)
        if self.adapted:
            self.add = custom(ADAPTERS, lambda y, *_: y)
            self.adapted_product = custom(ADAPTED_LINEAR, lambda weight, x, *_: [x[0], weight[0]])

    def construct(self, x, adapter=None, fresh=None):
        """``adapter``, ``fresh`` ``[B]``: see `StepInputs.adapter` and `StepInputs.q_seq_lens`."""
        if self.adapted and not self.in_float32:
            out = self.adapted_product(self.weight, x, self.a, self.b, self.pieces, adapter, fresh)
        else:
            out = self.product(x, self.weight)
            if self.adapted:
                out = self.add(out, x, self.a, self.b, self.pieces, adapter, fresh)
        if self.reduce is not None:
            out = self.reduce(out)
        return out if self.bias is None else out + self.bias


class Embedding(nn.Cell):
    """Token ids ``[T]`` to ``[T, hidden]``; where weights are tied, `weight` is the head's, too."""

    def __init__(self, take: Take, name: str) -> None:
        super().__init__()
        self.weight = take(f"{name}.weight")
        self.look_up = None if in_float32(self.weight) else custom(EMBEDDING, _embedding_shape)

    def construct(self, ids):
        if self.look_up is None:
            return ops.gather(self.weight, ids, 0)
        return self.look_up(ids, self.weight)


class Norm(nn.Cell):
    """RMS norm over the last dimension, or over pieces of it when the weight is shorter: a norm per head."""

    def __init__(self, take: Take, name: str, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = take(f"{name}.weight"), eps
        self.size = 0 if self.weight is None else self.weight.shape[0]
        self.mean = ops.ReduceMean(keep_dims=True)

    def construct(self, x):
        if self.weight is None:
            return x
        y = x.reshape(-1, self.size)
        return (y * ops.rsqrt(self.mean(ops.square(y), -1) + self.eps) * self.weight).reshape(x.shape)


class Gate(nn.Cell):
    """``[..., 2 * wide]`` to ``[..., wide]``: the first half, activated, times the second."""

    def __init__(self, wide: int, activation: str) -> None:
        super().__init__()
        self.wide, self.gelu, self.slope = wide, activation == "gelu_tanh", 2 * math.sqrt(2 / math.pi)

    def construct(self, x):
        gate, up = x[..., : self.wide], x[..., self.wide :]
        # the tanh form of gelu by (1 + tanh(x)) / 2 = sigmoid(2 x): MindSpore's tanh on CPU is off by 1e-5
        slope = self.slope * (gate + 0.044715 * gate * gate * gate) if self.gelu else gate
        return gate * ops.sigmoid(slope) * up


class Mlp(nn.Cell):
    """A gated MLP."""

    def __init__(self, take: Take, wide: int, activation: str, prefix: str = "", reduce: Reduce = None) -> None:
        super().__init__()
        self.gate_up, self.down = Linear(take, f"{prefix}gate_up"), Linear(take, f"{prefix}down", reduce)
        self.gate = Gate(wide, activation)

    def construct(self, x, slots, adapter, fresh):
        return self.down(self.gate(self.gate_up(x, adapter, fresh)), adapter, fresh)


class Experts(nn.Cell):
    """A mixture of experts, and perhaps one that all tokens share."""

    def __init__(self, take: Take, spec: ExpertsSpec, activation: str, reduce: Reduce = None) -> None:
        super().__init__()
        self.reduce = reduce
        self.chosen, self.renormalize = spec.chosen, spec.renormalize
        self.router = Linear(take, "router")
        self.gate_up, self.down = take("experts_gate_up.weight"), take("experts_down.weight")
        self.best, self.mix = ops.TopK(), custom(EXPERTS, lambda x, *_: x)
        self.has_shared = spec.shared_size > 0
        if self.has_shared:
            self.shared = Mlp(take, spec.shared_size, activation, "shared_")
            self.shared_gate = Linear(take, "shared_gate")

    def construct(self, x, slots, adapter, fresh):
        """``slots``: -1 for padding, for which no expert is read."""
        share, index = self.best(ops.softmax(self.router(x, adapter, fresh), -1), self.chosen)
        if self.renormalize:
            share = share / share.sum(-1, keepdims=True)
        out = self.mix(x, share, index, slots, self.gate_up, self.down)
        if self.has_shared:
            share = ops.sigmoid(self.shared_gate(x, adapter, fresh))
            out = out + self.shared(x, slots, adapter, fresh) * share
        return out if self.reduce is None else self.reduce(out)
