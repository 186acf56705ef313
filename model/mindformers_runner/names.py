"""Names of weights: Hugging Face's to mindformers', and fused matrices from their parts.

No permutation is needed between the two: both rotate halves of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass

import numpy as np

from model.checkpoint.stored_tensor import Dtype, Float, StoredTensor
from model.mindformers_runner.architecture import Architecture

Combine = Callable[[list[Float], Architecture], Float]

_PARTS = {
    "model.embed_tokens.weight": "model.tok_embeddings.embedding_weight",
    "model.norm.weight": "model.norm_out.weight",
    ".self_attn.q_proj.": ".attention.wq.",
    ".self_attn.k_proj.": ".attention.wk.",
    ".self_attn.v_proj.": ".attention.wv.",
    ".self_attn.o_proj.": ".attention.wo.",
    ".mlp.gate_proj.": ".feed_forward.w1.",
    ".mlp.down_proj.": ".feed_forward.w2.",
    ".mlp.up_proj.": ".feed_forward.w3.",
    ".input_layernorm.": ".attention_norm.",
    ".post_attention_layernorm.": ".ffn_norm.",
}


def to_mindformers(name: str) -> str:
    """A Hugging Face name as mindformers has it; a mindformers name stays what it is."""
    for theirs, ours in _PARTS.items():
        if theirs in name:
            return name.replace(theirs, ours)
    return name


def to_hugging_face(name: str) -> str:
    """A mindformers name as Hugging Face's checkpoints have it."""
    for theirs, ours in _PARTS.items():
        if ours in name:
            return name.replace(ours, theirs)
    return name


@dataclass(frozen=True, slots=True)
class Recipe:
    """Which stored tensors make up one weight, and how."""

    sources: tuple[str, ...]
    combine: Combine
    architecture: Architecture

    def reader(self, stored: Mapping[str, StoredTensor]) -> Callable[[Dtype], Float]:
        return lambda dtype: self.combine([stored[name].read(dtype) for name in self.sources], self.architecture)


def fused_sources(name: str, architecture: Architecture, stored: Container[str]) -> Recipe:
    """The weight itself, or its parts when the model wants it fused and the checkpoint has it in parts."""
    if name not in stored:
        for fused, parts, combine in _FUSED:
            if fused in name:
                return Recipe(tuple(name.replace(fused, part) for part in parts), combine, architecture)
    return Recipe((name,), _alone, architecture)


def _alone(parts: list[Float], _: Architecture) -> Float:
    return parts[0]


def _fuse_qkv(parts: list[Float], architecture: Architecture) -> Float:
    """Per key/value head: its queries, its key, its value (mindformers' qkv_concat_hf2mg)."""
    groups = architecture.num_kv_heads
    split = [part.reshape(groups, part.shape[0] // groups, *part.shape[1:]) for part in parts]
    return np.ascontiguousarray(np.concatenate(split, axis=1).reshape(-1, *parts[0].shape[1:]))


def _fuse_gate(parts: list[Float], _: Architecture) -> Float:
    """Gate and up rows alternate (mindformers' ffn_concat_hf2mg)."""
    return np.ascontiguousarray(np.stack(parts, axis=1).reshape(-1, parts[0].shape[1]))


_FUSED: tuple[tuple[str, tuple[str, ...], Combine], ...] = (
    ("attention.w_qkv.", ("attention.wq.", "attention.wk.", "attention.wv."), _fuse_qkv),
    ("feed_forward.w_gate_hidden.", ("feed_forward.w1.", "feed_forward.w3."), _fuse_gate),
)
