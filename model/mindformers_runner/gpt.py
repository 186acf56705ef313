"""Builds mindformers' `GPTModel` for one device, or for a rank's part of a model: the network of its newer classes
(``parallel_core``), which all families share.

Other than these classes it is built from a `Spec`, takes rotary tables of ours, and computes logits of the positions
that are sampled. On CPU layers get other parts besides (gpt_on_cpu.py). Never run on an Ascend device so far.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mindformers.parallel_core.inference.base_models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from mindformers.parallel_core.inference.base_models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from mindformers.parallel_core.inference.base_models.gpt.gpt_model import GPTModel
from mindformers.parallel_core.inference.tensor_parallel.layers import ColumnParallelLinear
from mindformers.parallel_core.inference.transformer.norm import get_norm_cls
from mindformers.parallel_core.inference.transformer.transformer_block import TransformerBlockSubmodules
from mindformers.parallel_core.transformer_config import TransformerConfig
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.nn.utils import no_init_parameters

from model.families import Spec
from model.families.shard import Shard
from model.mindformers_runner.rope import full_tables
from model.mindformers_runner.settings import MindFormersSettings
from model.mindformers_runner.summed import summed_layer
from model.mindspore_common.reduce import all_reduce

_NORM = "RMSNorm"
_HIDDEN = -10000.0  # what mindformers adds to scores of keys that a token must not see


class SampledGpt(GPTModel):
    """Logits of sampled positions ``[S]``, which come as ``context_lens_tensor``: attention does not need that."""

    def pre_gather_func(self, output, context_lens_tensor, seq_lens_tensor):
        return ops.gather(output, context_lens_tensor, 0)


class GptNetwork(nn.Cell):
    """A mixed step of `GPTModel` as the runner gives it.

    ``width``: logits of a position; ``mask``: what attention gets as a mask; ``caches``: keys and values of each
    layer, where attention does not own them.
    """

    def __init__(self, model: SampledGpt, width: int, mask: nn.Cell, caches: tuple[ParameterTuple, ...] = ()) -> None:
        super().__init__(auto_prefix=False)
        self.model, self.mask, self.width = model, mask, width
        self.has_caches = bool(caches)
        if caches:
            self.keys, self.values = caches

    def construct(self, ids, positions, slots, valid, fresh, samples, tables):
        keys, values = (self.keys, self.values) if self.has_caches else (None, None)
        logits = self.model(
            ids,
            None,
            positions,
            valid,
            samples,
            fresh,
            tables,
            slots,
            self.mask(positions),
            None,
            None,
            None,
            None,
            None,
            keys,
            values,
        )
        return logits.reshape(-1, self.width)  # of a single one it makes [vocab]


class LaterKeys(nn.Cell):
    """Positions ``[T]`` to ``[T, max_length]``: 0, and -10000 for keys behind each."""

    def __init__(self, max_length: int, dtype: Any) -> None:
        super().__init__()
        self.range, self.dtype = Tensor(np.arange(max_length, dtype=np.int32)), dtype

    def construct(self, positions):
        return (self.range > positions.expand_dims(1)).astype(self.dtype) * _HIDDEN


def build_gpt(shard: Shard, settings: MindFormersSettings, max_length: int, dtype: str) -> GptNetwork:
    """The network without weights and with an empty KV cache. Of a rank's part mindformers knows no ranks: it is a
    smaller model, whose halves of a layer are added up over the ranks."""
    spec, reduce = shard.spec, all_reduce(settings)
    config, width = gpt_config(spec, dtype), shard.vocabulary[1] - shard.vocabulary[0]
    layers = [summed_layer(layer, reduce) if reduce else layer for layer in _layers(spec)]
    if settings.device == "Ascend":
        model = _model(spec, config, layers, get_norm_cls(_NORM), width)
        set_rotation(model, _rotation(spec, config, max_length))
        mask = LaterKeys(max_length, config.compute_dtype)
        network = GptNetwork(model, width, mask, _caches(spec, settings, config))
    else:
        from model.mindformers_runner.gpt_on_cpu import CpuNorm, NoRotation, RotaryTables, cpu_layer, use_cpu_silu

        layers = [cpu_layer(layer, spec, number, settings, reduce) for number, layer in enumerate(layers)]
        model = _model(spec, config, layers, CpuNorm, width)
        use_cpu_silu(model)
        set_rotation(model, NoRotation())
        network = GptNetwork(model, width, RotaryTables(spec, max_length))
    network.set_train(False)
    return network


def gpt_config(spec: Spec, dtype: str) -> TransformerConfig:
    """mindformers' configuration of the spec's sizes and features."""
    experts = spec.experts
    mixture = {} if experts is None else {
        "num_moe_experts": experts.count,
        "moe_router_topk": experts.chosen,
        "moe_ffn_hidden_size": experts.intermediate_size,
        "norm_topk_prob": experts.renormalize,
        "moe_router_dtype": "float32",
        "moe_router_score_function": "softmax",
        "moe_grouped_gemm": True,
    }  # fmt: skip
    return TransformerConfig(
        num_layers=spec.num_layers,
        hidden_size=spec.hidden_size,
        num_attention_heads=spec.num_heads,
        num_query_groups=spec.num_kv_heads,
        kv_channels=spec.head_dim,
        ffn_hidden_size=spec.intermediate_size,
        vocab_size=spec.vocab_size,
        normalization=_NORM,
        layernorm_epsilon=spec.norm_eps,
        hidden_act=spec.activation,
        gated_linear_unit=True,
        add_qkv_bias=spec.qkv_bias,
        add_bias_linear=spec.output_bias,
        add_mlp_fc1_bias_linear=spec.mlp_bias,
        add_mlp_fc2_bias_linear=spec.mlp_bias,
        compute_dtype=dtype,
        params_dtype=dtype,
        rotary_dtype=dtype,
        layernorm_compute_dtype="float32",
        use_flash_attention=True,
        position_embedding_type="rope",
        max_position_embeddings=1,  # sizes tables that are replaced
        **mixture,
    )


def set_rotation(model: GPTModel, rotation: nn.Cell) -> None:
    """One cell for all layers."""
    model.rotary_pos_emb = rotation
    for layer in model.decoder.layers:
        layer.self_attention.rotary_emb = rotation


def _model(spec: Spec, config: TransformerConfig, layers: list[Any], norm: type[nn.Cell], width: int) -> SampledGpt:
    """``width``: logits of a position, which are a part of the vocabulary where others have the rest."""
    with no_init_parameters():
        model = SampledGpt(
            config=config,
            transformer_layer_spec=TransformerBlockSubmodules(layer_specs=layers, layer_norm=norm),
            vocab_size=spec.vocab_size,
            max_sequence_length=1,
            position_embedding_type="rope",
            share_embeddings_and_output_weights=spec.tied_embeddings,
        )
        if width < spec.vocab_size:
            dtype = config.compute_dtype
            model.output_layer = ColumnParallelLinear(
                spec.hidden_size, width, config=config, bias=False, compute_dtype=dtype
            )
    # steps are mixed: all attention is paged, and rotary tables are looked up by position
    model.add_flags(is_prefill=False, move_lens_to_cpu=False)
    for layer in model.decoder.layers:
        layer.self_attention.core_attention.add_flags(is_prefill=False)
    return model


def _layers(spec: Spec) -> list[Any]:
    return [
        get_gpt_layer_local_spec(
            num_experts=spec.experts.count if spec.experts is not None and spec.has_experts(number) else None,
            normalization=_NORM,
            qk_layernorm=spec.qk_norm == "head",
            sandwich_norm=spec.norms == "both",
        )
        for number in range(spec.num_layers)
    ]


def _rotation(spec: Spec, config: TransformerConfig, max_length: int) -> RotaryEmbedding:
    """mindformers' own operator over our tables."""
    rotation = RotaryEmbedding(spec.head_dim, rotary_dtype=config.rotary_dtype, max_position_embeddings=1)
    cos, sin = full_tables(spec, max_length)
    rotation.cos_cache, rotation.sin_cache = Tensor(cos, config.rotary_dtype), Tensor(sin, config.rotary_dtype)
    return rotation


def _caches(spec: Spec, settings: MindFormersSettings, config: TransformerConfig) -> tuple[ParameterTuple, ...]:
    """Keys and values, as mindformers' attention wants them."""
    shape = (settings.num_blocks, settings.block_size, spec.num_kv_heads, spec.head_dim)

    def caches(name: str) -> ParameterTuple:
        return ParameterTuple(
            [
                Parameter(ops.zeros(shape, config.compute_dtype), name=f"{name}.{layer}", requires_grad=False)
                for layer in range(spec.num_layers)
            ]
        )

    return caches("key_cache"), caches("value_cache")
