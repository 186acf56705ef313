"""The decoder's small cells: linear layers, norms, MLPs, experts. Each takes its weights by name."""

from __future__ import annotations

import math
from collections.abc import Callable

from mindspore import Parameter, nn, ops

from model.families import Experts as ExpertsSpec

Take = Callable[[str], Parameter | None]
"""A weight by its name within a layer, once; None where the spec has none."""


class Linear(nn.Cell):
    """``[T, inputs]`` to ``[T, outputs]``."""

    def __init__(self, take: Take, name: str) -> None:
        super().__init__()
        self.weight, self.bias = take(f"{name}.weight"), take(f"{name}.bias")
        self.product = ops.MatMul(transpose_b=True)

    def construct(self, x):
        out = self.product(x, self.weight)
        return out if self.bias is None else out + self.bias


class Embedding(nn.Cell):
    """Token ids ``[T]`` to ``[T, hidden]``; where weights are tied, `weight` is the head's, too."""

    def __init__(self, take: Take, name: str) -> None:
        super().__init__()
        self.weight = take(f"{name}.weight")

    def construct(self, ids):
        return ops.gather(self.weight, ids, 0)


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

    def __init__(self, take: Take, wide: int, activation: str, prefix: str = "") -> None:
        super().__init__()
        self.gate_up, self.down = Linear(take, f"{prefix}gate_up"), Linear(take, f"{prefix}down")
        self.gate = Gate(wide, activation)

    def construct(self, x):
        return self.down(self.gate(self.gate_up(x)))


class Experts(nn.Cell):
    """A mixture of experts, and perhaps one that all tokens share."""

    def __init__(self, take: Take, spec: ExpertsSpec, activation: str) -> None:
        super().__init__()
        self.count, self.chosen, self.renormalize = spec.count, spec.chosen, spec.renormalize
        self.router = Linear(take, "router")
        self.gate_up, self.down = take("experts_gate_up.weight"), take("experts_down.weight")
        self.gate, self.best = Gate(spec.intermediate_size, activation), ops.TopK()
        self.product = ops.BatchMatMul(transpose_b=True)
        self.has_shared = spec.shared_size > 0
        if self.has_shared:
            self.shared = Mlp(take, spec.shared_size, activation, "shared_")
            self.shared_gate = Linear(take, "shared_gate")

    def construct(self, x):
        share, index = self.best(ops.softmax(self.router(x), -1), self.chosen)
        if self.renormalize:
            share = share / share.sum(-1, keepdims=True)
        out = self.mix(x, share, index)
        if self.has_shared:
            out = out + self.shared(x) * ops.sigmoid(self.shared_gate(x))
        return out

    def mix(self, x, share, index):
        """Every expert for every token, weighted by its share or 0."""
        share = (ops.one_hot(index, self.count) * share.expand_dims(-1)).sum(1)  # [T, count]
        y = self.product(ops.tile(x.expand_dims(0), (self.count, 1, 1)), self.gate_up)
        y = self.product(self.gate(y), self.down)  # [count, T, hidden]
        return (y * share.swapaxes(0, 1).expand_dims(-1)).sum(0)
