"""Builds mindformers' `LlamaForCausalLM` for one device.

On CPU it is the same class with two things replaced: the attention cell, and the choice of the rows whose
logits are wanted, for which mindformers uses an operator that CPUs lack. On Ascend nothing is replaced but the rotary
tables, as on CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mindformers import LlamaConfig, LlamaForCausalLM
from mindformers.models.llama import llama_transformer
from mindspore import Tensor, nn, ops
from mindspore.nn.utils import no_init_parameters

from model.families import Spec
from model.mindformers_runner.rope import full_tables
from model.mindformers_runner.settings import MindFormersSettings


class CpuLlama(LlamaForCausalLM):
    """`LlamaForCausalLM` that picks its logit rows with an operator that CPUs have."""

    def pre_gather_func(self, pre_gather, output, batch_valid_length, gather_index=None):
        """Hidden states ``[1, T, hidden]`` to those of ``gather_index``, ``[S, hidden]``."""
        return ops.gather(output.reshape(-1, output.shape[-1]), gather_index, 0)


def build_llama(spec: Spec, settings: MindFormersSettings, max_length: int, dtype: str, *, fused: bool) -> Any:
    """The network without weights (they are not even initialised) and, on CPU, with an empty KV cache."""
    config = llama_config(spec, settings, max_length, dtype, fused=fused)
    if settings.device == "Ascend":
        with no_init_parameters():
            network = LlamaForCausalLM(config)
    else:
        with no_init_parameters(), _attention_cell(cpu_attention(settings)):
            network = CpuLlama(config)
    network.set_train(False)
    network.predict_run_mode = True  # logits alone, flattened to [S, vocab]
    network.add_flags_custom(is_first_iteration=True)
    set_rotary_tables(network, spec, max_length)
    return network


def set_rotary_tables(network: LlamaForCausalLM, spec: Spec, max_length: int) -> None:
    """Ours in the place of mindformers'."""
    manager = network.model.freqs_mgr
    dtype = manager.freqs_cos.dtype
    manager.freqs_cos, manager.freqs_sin = (Tensor(table, dtype) for table in full_tables(spec, max_length))


def llama_config(
    spec: Spec, settings: MindFormersSettings, max_length: int, dtype: str, *, fused: bool
) -> LlamaConfig:
    """mindformers' configuration for paged attention in ``chunk_prefill`` mode."""
    on_cpu = settings.device == "CPU"
    return LlamaConfig(
        batch_size=1,
        # only sizes the [seq_length, seq_length] mask, which the CPU's attention does not need
        seq_length=1 if on_cpu else max_length,
        max_position_embedding=max_length,
        hidden_size=spec.hidden_size,
        num_layers=spec.num_layers,
        num_heads=spec.num_heads,
        n_kv_heads=spec.num_kv_heads,
        intermediate_size=spec.intermediate_size,
        vocab_size=spec.vocab_size,
        rms_norm_eps=spec.norm_eps,
        tie_word_embeddings=spec.tied_embeddings,
        qkv_has_bias=spec.qkv_bias,
        attn_proj_has_bias=spec.output_bias,
        qkv_concat=fused,
        pad_token_id=0,
        compute_dtype=dtype,
        param_init_type=dtype,
        layernorm_compute_type="float32",
        softmax_compute_type="float32",
        rotary_dtype=dtype,
        use_past=True,
        chunk_prefill=True,
        block_size=settings.block_size,
        num_blocks=settings.num_blocks,
        use_flash_attention=not on_cpu,
        fused_rms_norm=not on_cpu,
        is_dynamic=not on_cpu,
        use_rope_slice=on_cpu,
        checkpoint_name_or_path="",
    )


def cpu_attention(settings: MindFormersSettings) -> type[nn.Cell]:
    """The cell that rotates, writes the KV cache and attends."""
    if settings.attention == "plain":
        from model.mindformers_runner.plain_attention import PlainPagedAttention

        return PlainPagedAttention
    from model.mindformers_runner.attention import PagedAttention

    return PagedAttention


@contextmanager
def _attention_cell(cell: type[nn.Cell]) -> Iterator[None]:
    """The one seam: while the network is built, its layers find this cell under mindformers' name."""
    original = llama_transformer.InferAttention
    llama_transformer.InferAttention = cell
    try:
        yield
    finally:
        llama_transformer.InferAttention = original
