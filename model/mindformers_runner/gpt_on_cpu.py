"""Parts of `GPTModel`'s layers whose operators CPUs lack: attention, norms, SiLU, experts. None is used on Ascend.

The attention's operator rotates, too: mindformers' rotation does nothing here, and cosines and sines come where its
attention has a mask.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindformers.parallel_core.inference.base_models.gpt.gpt_model import GPTModel
from mindformers.parallel_core.inference.transformer.mlp import MLP
from mindformers.parallel_core.inference.transformer.norm import RMSNorm
from mindformers.parallel_core.utils.spec_utils import ModuleSpec
from mindspore import Parameter, Tensor, nn, ops

from model.checkpoint.arrays import aligned_zeros
from model.families import Experts, Spec
from model.mindformers_runner.llama import cpu_attention
from model.mindformers_runner.rope import full_tables
from model.mindformers_runner.settings import MindFormersSettings
from model.mindspore_common.native import EXPERTS, LIBRARY
from model.mindspore_common.reduce import Reduce


class RotaryTables(nn.Cell):
    """Positions ``[T]`` to cosines and sines ``[T, head_dim]``. Parameters: constants would be part of each graph."""

    def __init__(self, spec: Spec, max_length: int) -> None:
        super().__init__()
        cos, sin = full_tables(spec, max_length)
        self.cos = Parameter(Tensor.from_numpy(cos), name="cos", requires_grad=False)
        self.sin = Parameter(Tensor.from_numpy(sin), name="sin", requires_grad=False)

    def construct(self, positions):
        return ops.gather(self.cos, positions, 0), ops.gather(self.sin, positions, 0)


class NoRotation(nn.Cell):
    """As mindformers' `RotaryEmbedding` is called."""

    def construct(self, query, key, cos, sin, lengths):
        return query, key

    def get_cos_sin_for_decode(self, positions):
        return positions, positions


class CpuAttention(nn.Cell):
    """As mindformers' `FlashAttention` is made and called, over the Llama's cell for CPU."""

    def __init__(self, cell: type[nn.Cell], block_size: int, num_blocks: int, head_num: int, head_dim: int,
                 kv_head_num: int, **_: Any) -> None:  # fmt: skip
        super().__init__()
        self.inner = cell(head_num, head_dim, kv_head_num, block_size=block_size, num_blocks=num_blocks)

    def construct(
        self,
        query,
        key,
        value,
        slot_mapping=None,
        block_tables=None,
        batch_valid_length=None,
        context_lens_tensor=None,
        q_seq_lens=None,
        actual_seq_qlen=None,
        actual_seq_kvlen=None,
        attn_mask=None,
        padding_mask=None,
        prefix=None,
        key_cache=None,
        value_cache=None,
    ):
        cos, sin = attn_mask
        out = self.inner(
            query.expand_dims(0),
            key.expand_dims(0),
            value.expand_dims(0),
            batch_valid_length,
            block_tables,
            slot_mapping,
            (cos, sin, None),
            None,
            None,
            None,
            q_seq_lens,
        )
        return out.squeeze(0)


class CpuNorm(nn.Cell):
    """As mindformers' `RMSNorm`."""

    def __init__(self, config: Any, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.weight = _parameter("weight", hidden_size)
        self.eps, self.mean = eps, ops.ReduceMean(keep_dims=True)

    def construct(self, x):
        return x * ops.rsqrt(self.mean(ops.square(x), -1) + self.eps) * self.weight


class CpuSiLU(nn.Cell):
    def construct(self, x):
        return x * ops.sigmoid(x)


class CpuRouter(nn.Cell):
    """``[T, hidden]`` to each token's shares and experts, ``[T, chosen]`` both."""

    def __init__(self, hidden_size: int, experts: Experts) -> None:
        super().__init__()
        self.weight = _parameter("weight", experts.count, hidden_size)
        self.chosen, self.renormalize = experts.chosen, experts.renormalize
        self.product, self.best = ops.MatMul(transpose_b=True), ops.TopK()

    def construct(self, x):
        share, index = self.best(ops.softmax(self.product(x, self.weight), -1), self.chosen)
        if self.renormalize:
            share = share / share.sum(-1, keepdims=True)
        return share, index


class CpuExperts(nn.Cell):
    """As mindformers' `MoELayer`, by our operator, which reads the experts that some token chose."""

    def __init__(self, experts: Experts, reduce: Reduce, config: Any, **_: Any) -> None:
        super().__init__()
        self.reduce = reduce
        hidden, wide = config.hidden_size, experts.intermediate_size
        self.router = CpuRouter(hidden, experts)
        self.gate_up = _parameter("gate_up", experts.count, 2 * wide, hidden)
        self.down = _parameter("down", experts.count, hidden, wide)
        self.mix = ops.Custom(
            f"{LIBRARY}:{EXPERTS}", out_shape=lambda x, *_: x, out_dtype=lambda *_: ms.float32, func_type="aot"
        )

    def construct(self, x):
        share, index = self.router(x)
        out = self.mix(x, share, index, ops.zeros_like(index[:, 0]), self.gate_up, self.down)
        return out if self.reduce is None else self.reduce(out)


def cpu_layer(
    layer: ModuleSpec, spec: Spec, number: int, settings: MindFormersSettings, reduce: Reduce
) -> ModuleSpec:
    """A layer's description with parts for CPU."""
    parts, attention = layer.submodules, layer.submodules.self_attention.submodules
    for owner in (parts, attention):
        for name, part in vars(owner).items():
            if part is RMSNorm:
                setattr(owner, name, CpuNorm)
    cell = {
        "cell": cpu_attention(settings),
        "block_size": settings.block_size,
        "num_blocks": settings.num_blocks,
    }
    attention.core_attention = ModuleSpec(module=CpuAttention, params=cell)
    if spec.has_experts(number):
        parts.mlp = ModuleSpec(module=CpuExperts, params={"experts": spec.experts, "reduce": reduce})
    return layer


def use_cpu_silu(model: GPTModel) -> None:
    for layer in model.decoder.layers:
        if isinstance(layer.mlp, MLP):
            layer.mlp.activation_func = CpuSiLU()


def _parameter(name: str, *shape: int) -> Parameter:
    return Parameter(Tensor.from_numpy(aligned_zeros(shape)), name=name, requires_grad=False)
