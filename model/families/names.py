"""What families call their tensors, by layer; a missing part is one that the family stores fused with others."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Names:
    """Names without ``.weight`` and ``.bias``; those of a layer follow ``layer``."""

    embed: str = "model.embed_tokens"
    norm: str = "model.norm"
    head: str = "lm_head"
    layer: str = "model.layers.{}."
    attention_norm: str = "input_layernorm"
    attention_post_norm: str = "post_attention_layernorm"
    mlp_norm: str = "post_attention_layernorm"
    mlp_post_norm: str = "post_feedforward_layernorm"
    q: str = "self_attn.q_proj"
    k: str = "self_attn.k_proj"
    v: str = "self_attn.v_proj"
    qkv: str = ""  # queries, keys and values in one
    qkv_by_group: bool = False  # per key/value head its queries, its key and its value
    q_norm: str = "self_attn.q_norm"
    k_norm: str = "self_attn.k_norm"
    o: str = "self_attn.o_proj"
    gate: str = "mlp.gate_proj"
    up: str = "mlp.up_proj"
    gate_up: str = ""
    gate_up_alternate: bool = False  # a row of the one, a row of the other
    down: str = "mlp.down_proj"
    router: str = "mlp.gate"
    expert: str = "mlp.experts.{}."
    expert_parts: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
    shared: str = "mlp.shared_expert."
    shared_gate: str = "mlp.shared_expert_gate"


_PLAIN = Names()
_FUSED_MLP = replace(_PLAIN, gate_up="mlp.gate_up_proj")
_AROUND = replace(_PLAIN, mlp_norm="pre_feedforward_layernorm")
_FAMILIES: dict[str, Names] = {
    "gemma2": _AROUND,
    "gemma3_text": _AROUND,
    "glm": _FUSED_MLP,
    "glm4": replace(_FUSED_MLP, attention_post_norm="post_self_attn_layernorm", mlp_post_norm="post_mlp_layernorm"),
    "internlm2": Names(
        embed="model.tok_embeddings",
        head="output",
        attention_norm="attention_norm",
        mlp_norm="ffn_norm",
        qkv="attention.wqkv",
        qkv_by_group=True,
        o="attention.wo",
        gate="feed_forward.w1",
        up="feed_forward.w3",
        down="feed_forward.w2",
    ),
    "mixtral": replace(
        _PLAIN, router="block_sparse_moe.gate", expert="block_sparse_moe.experts.{}.", expert_parts=("w1", "w3", "w2")
    ),
    "phi3": replace(_FUSED_MLP, qkv="self_attn.qkv_proj"),
}

_MINDFORMERS = {
    "model.tok_embeddings.embedding_weight": "model.embed_tokens.weight",
    "model.norm_out.weight": "model.norm.weight",
    ".attention.wq.": ".self_attn.q_proj.",
    ".attention.wk.": ".self_attn.k_proj.",
    ".attention.wv.": ".self_attn.v_proj.",
    ".attention.wo.": ".self_attn.o_proj.",
    ".attention.w_qkv.": ".self_attn.qkv_proj.",
    ".feed_forward.w_gate_hidden.": ".mlp.gate_up_proj.",
    ".feed_forward.w1.": ".mlp.gate_proj.",
    ".feed_forward.w2.": ".mlp.down_proj.",
    ".feed_forward.w3.": ".mlp.up_proj.",
    ".attention_norm.": ".input_layernorm.",
    ".ffn_norm.": ".post_attention_layernorm.",
}


_FUSED_BY_MINDFORMERS = replace(
    _PLAIN, qkv="self_attn.qkv_proj", qkv_by_group=True, gate_up="mlp.gate_up_proj", gate_up_alternate=True
)


def names_of(family: str, stored: Container[str] = ()) -> Names:
    """By ``model_type``. ``stored``: a checkpoint's names, translated: mindformers stores Llama's fused, too."""
    if family == "llama" and "model.layers.0.self_attn.qkv_proj.weight" in stored:
        return _FUSED_BY_MINDFORMERS
    return _FAMILIES.get(family, _PLAIN)


def from_mindformers(name: str) -> str:
    """Llama's names in mindformers' checkpoints, as Hugging Face has them; those stay what they are."""
    return _translated(name, _MINDFORMERS.items())


def to_mindformers(name: str) -> str:
    """The other way."""
    return _translated(name, ((ours, theirs) for theirs, ours in _MINDFORMERS.items()))


def _translated(name: str, parts: Iterable[tuple[str, str]]) -> str:
    for part, translated in parts:
        if part in name:
            return name.replace(part, translated)
    return name
