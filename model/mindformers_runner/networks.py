"""Which of mindformers' networks computes a model, and in which numbers: decided by the features of its `Spec`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from model.errors import ConfigurationError
from model.families import Spec

Network = Literal["Llama", "GPTModel"]
"""`LlamaForCausalLM`, which llm-serving drives, or the newer classes' `GPTModel` (``parallel_core``)."""


def choose_network(spec: Spec, max_length: int, ranks: int = 1) -> Network:
    """The Llama where it has all that the model needs, and there is one rank, else `GPTModel`: a rank's heads are not
    as wide together as the model, which the Llama can't be told.

    Raises ConfigurationError, with all features that neither has.
    """
    lacking = (*_unknown_to_both(spec, max_length), *_unknown_to_gpt(spec))
    if lacking:
        raise ConfigurationError(
            f"model_type {spec.family!r}: mindformers' networks lack {'; '.join(lacking)}; "
            "serve it on CPU with pipeline.runner: {kind: mindspore, device: CPU}"
        )
    return "GPTModel" if ranks > 1 or _needs_gpt(spec) else "Llama"


def compute_dtype(spec: Spec, device: str) -> str:
    """What the device computes in: float32 on CPU. Ascend's attention has no float32; what was trained in bfloat16 is
    computed so, because its activations overflow in float16."""
    if device == "CPU":
        return "float32"
    return "bfloat16" if spec.dtype == "bfloat16" else "float16"


def _unknown_to_both(spec: Spec, max_length: int) -> Iterator[str]:
    short = [window for window in spec.windows if 0 < window < max_length]
    if short:
        yield f"windows (of {min(short)} tokens; up to a max_generate_length of {min(short)} it makes no difference)"
    if len({spec.ropes[spec.rope(layer)] for layer in range(spec.num_layers)}) > 1:
        yield "rotary embeddings that differ between layers"
    if spec.activation != "silu":
        yield f"activation {spec.activation}"
    if spec.embedding_scale != 1:
        yield "a scale of embeddings"
    if spec.score_softcap or spec.logits_softcap:
        yield "softcaps"


def _unknown_to_gpt(spec: Spec) -> Iterator[str]:
    """Nor does the Llama know these."""
    if spec.norms == "after":
        yield "norms only after attention and MLP"
    if spec.qk_norm == "all":
        yield "a norm over all heads of queries and keys together"
    if spec.experts is not None and spec.experts.shared_size:
        yield "a shared expert behind a gate"
    if spec.experts is not None and spec.output_bias:
        yield "experts beside a bias of attention's output"


def _needs_gpt(spec: Spec) -> bool:
    other_heads = spec.query_width != spec.hidden_size
    return other_heads or spec.mlp_bias or bool(spec.qk_norm) or spec.norms != "before" or spec.experts is not None
