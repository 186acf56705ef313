"""Parts of `GPTModel`'s layers that have some of their inputs: what the ranks make of theirs is added up.

mindformers divides a network by its own process groups, which it can make on Ascend alone. Here each rank has a
smaller network, and nothing but these differs from one device's.
"""

from __future__ import annotations

from typing import Any

from mindformers.parallel_core.inference.tensor_parallel.layers import RowParallelLinear
from mindformers.parallel_core.inference.transformer.moe.moe_layer import MoELayer
from mindformers.parallel_core.utils.spec_utils import ModuleSpec

from model.mindspore_common.reduce import Reduce


class SummedLinear(RowParallelLinear):
    """``[T, this rank's inputs]`` to ``[T, outputs]``; the bias is added once."""

    def __init__(self, *args: Any, reduce: Reduce, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reduce = reduce

    def construct(self, x):
        out = self.reduce(self.quant_method.apply(self, x, self.weight, None))
        return out if self.bias is None else out + self.bias


class SummedExperts(MoELayer):
    """As mindformers' `MoELayer`, of experts of which each rank has a part."""

    def __init__(self, *args: Any, reduce: Reduce, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reduce = reduce

    def construct(self, hidden_states, attn_unpadding_idx=None, ffn_padding_idx=None):
        return self.reduce(super().construct(hidden_states, attn_unpadding_idx, ffn_padding_idx))


def summed_layer(layer: ModuleSpec, reduce: Reduce) -> ModuleSpec:
    """A layer's description with parts that add up."""
    attention, mlp = layer.submodules.self_attention.submodules, layer.submodules.mlp
    summed: dict[str, Any] = {"reduce": reduce}
    attention.linear_proj = ModuleSpec(module=SummedLinear, params=summed)
    if mlp.module is MoELayer:
        mlp.module, mlp.params = SummedExperts, {**mlp.params, **summed}
    else:
        mlp.submodules.linear_fc2 = ModuleSpec(module=SummedLinear, params=summed)
    return layer
