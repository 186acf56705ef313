"""Canonical weights (`model.families`) as mindformers' networks have them: their names, fused, split, transposed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.checkpoint.stored_tensor import Bits, Dtype, Float
from model.checkpoint.weight import Weight
from model.families import Spec
from model.mindformers_runner.networks import Network

Array = NDArray[Any]
Combine = Callable[[list[Array]], Array]
Made = Iterator[tuple[str, tuple[str, ...], Combine]]
"""Of each parameter: its name, the canonical weights that it is made of, and how; of two that are the halves of one,
both names with a space between."""

_LLAMA = {
    "embed.weight": "model.tok_embeddings.embedding_weight",
    "norm.weight": "model.norm_out.weight",
    "head.weight": "lm_head.weight",
    "attention_norm": "attention_norm",
    "mlp_norm": "ffn_norm",
    "q": "attention.wq",
    "k": "attention.wk",
    "v": "attention.wv",
    "o": "attention.wo",
    "down": "feed_forward.w2",
}
_GPT = {
    "embed.weight": "embedding.word_embeddings.weight",
    "norm.weight": "decoder.final_layernorm.weight",
    "head.weight": "output_layer.weight",
    "attention_norm": "input_layernorm",
    "attention_post_norm": "post_self_attn_layernorm",
    "mlp_norm": "pre_mlp_layernorm",
    "mlp_post_norm": "post_mlp_layernorm",
    "q_norm": "self_attention.q_layernorm",
    "k_norm": "self_attention.k_layernorm",
    "o": "self_attention.linear_proj",
    "gate_up": "mlp.linear_fc1",
    "down": "mlp.linear_fc2",
    "router": "mlp.router",
}


def network_weights(
    spec: Spec, network: Network, canonical: Sequence[Weight], *, fused: bool = False, on_cpu: bool = True
) -> tuple[Weight, ...]:
    """The parameters of a network, read from canonical weights, each of these once and one after the other.

    A name may be two, with a space between: each gets half of the rows.

    ``fused``: the Llama has fused matrices; ``on_cpu``: experts are as our operator wants them.
    """
    weights, shapes = {weight.name: weight for weight in canonical}, spec.tensors()
    made = _llama(spec, shapes, fused) if network == "Llama" else _gpt(spec, shapes, on_cpu)
    return tuple(_weight(name, [weights[source] for source in sources], combine) for name, sources, combine in made)


def _llama(spec: Spec, shapes: Mapping[str, Any], fused: bool) -> Made:
    for name in shapes:
        prefix, part, what = _split(name)
        ours = (name,)
        if part == "gate_up" and fused:
            yield f"model.{prefix}feed_forward.w_gate_hidden.{what}", ours, _alternate
        elif part == "gate_up":
            yield " ".join(f"model.{prefix}feed_forward.{half}.{what}" for half in ("w1", "w3")), ours, _alone
        elif part in {"q", "k", "v"} and fused:
            if part == "q":
                sources = tuple(f"{prefix}{other}.{what}" for other in "qkv")
                yield f"model.{prefix}attention.w_qkv.{what}", sources, _by_group(spec.num_kv_heads)
        else:
            yield (f"model.{prefix}{_LLAMA[part]}.{what}" if prefix else _LLAMA[name]), ours, _alone


def _gpt(spec: Spec, shapes: Mapping[str, Any], on_cpu: bool) -> Made:
    for name in shapes:
        prefix, part, what = _split(name)
        ours = (name,)
        if part == "q":
            sources = tuple(f"{prefix}{other}.{what}" for other in "qkv")
            yield f"decoder.{prefix}self_attention.linear_qkv.{what}", sources, np.concatenate
        elif part.startswith("experts_"):
            gate_up = part == "experts_gate_up"
            if on_cpu:
                yield f"decoder.{prefix}mlp.{'gate_up' if gate_up else 'down'}", ours, _alone
            else:
                yield f"decoder.{prefix}mlp.experts.weight{1 if gate_up else 2}", ours, _transposed
        elif part not in {"k", "v"}:
            yield (f"decoder.{prefix}{_GPT[part]}.{what}" if prefix else _GPT[name]), ours, _alone


def _split(name: str) -> tuple[str, str, str]:
    """``layers.3.q.bias`` to ``layers.3.``, ``q`` and ``bias``."""
    rest, _, what = name.rpartition(".")
    prefix, dot, part = rest.rpartition(".")
    return prefix + dot, part, what


def _weight(name: str, sources: Sequence[Weight], combine: Combine) -> Weight:
    def read(dtype: Dtype) -> Float:
        return combine([source.read(dtype) for source in sources])

    def read_bits() -> Bits:
        return combine([bits() for bits in stored if bits is not None])

    stored = [source.read_bits for source in sources]
    first = sources[0].shape
    shape = (sum(source.shape[0] for source in sources), *first[1:])
    if combine is _transposed:
        shape = (first[0], first[2], first[1])
    return Weight(name, shape, read, read_bits if None not in stored else None)


def _alone(parts: list[Array]) -> Array:
    return parts[0]


def _by_group(groups: int) -> Combine:
    """Per key/value head: its queries, its key, its value (mindformers' qkv_concat_hf2mg)."""

    def fuse(parts: list[Array]) -> Array:
        split = [part.reshape(groups, part.shape[0] // groups, *part.shape[1:]) for part in parts]
        fused: Array = np.concatenate(split, axis=1)
        return fused.reshape(-1, *parts[0].shape[1:])

    return fuse


def _alternate(parts: list[Array]) -> Array:
    """A row of the first half, a row of the second (mindformers' ffn_concat_hf2mg)."""
    halves: Array = np.stack(np.split(parts[0], 2), axis=1)
    return halves.reshape(parts[0].shape)


def _transposed(parts: list[Array]) -> Array:
    """Matrices as their products want them: ``[experts, outputs, inputs]`` to ``[experts, inputs, outputs]``."""
    return parts[0].swapaxes(1, 2)
